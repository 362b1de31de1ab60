"""Stripe's objects as we keep them: what the stand-in has, however its events come. stripe-python judges its forms."""

import itertools
import json
import random
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.billing.mirror.read import StripeReader
from gateway.billing.mirror.refresh import Mirror, MirrorSynced
from gateway.billing.mirror.store import FRESH, MirrorStore
from gateway.billing.stripe import Billing
from gateway.billing.webhooks.inbox import StripeInbox
from gateway.billing.webhooks.notice_store import NoticeStore
from gateway.billing.webhooks.recheck import HourRecheck
from gateway.billing.webhooks.worker import StripeEvents
from gateway.stores.postgres import Pool
from gateway.stores.webhook_inbox import ATTEMPTS_MAX, WebhookEvent
from tests.conftest import METER
from tests.support.stand_ins import control
from tests.support.stripe_shop import DAY, JANUARY, START, Shop


def work(pool: Pool, billing: Billing) -> StripeEvents:
    reader, notices = StripeReader(billing), NoticeStore(pool)
    mirror = Mirror(reader, MirrorStore(pool))
    return StripeEvents(StripeInbox(pool), notices, reader, mirror, HourRecheck(notices, billing))


async def use(shop: Shop, customer: str, value: int, at: int) -> None:
    """Usage at an instant, reported a minute later."""
    await shop.move_to(at + 60)
    await shop.use(customer, value, at)


_numbers = itertools.count()


def told(kind: str, about: dict[str, Any], *, created: int = START, **fields: Any) -> WebhookEvent:
    """An event about an object, as a snapshot."""
    name = f"evt_{next(_numbers)}"
    document = {
        "id": name, "object": "event", "type": kind, "created": created, "livemode": False, "data": {"object": about},
    } | fields  # fmt: skip
    return WebhookEvent(name, kind, datetime.fromtimestamp(created, UTC), json.dumps(document).encode())


async def apply_all(pool: Pool, billing: Billing, events: list[WebhookEvent]) -> None:
    await StripeInbox(pool).store(events)
    worker = work(pool, billing)
    while await worker.step_once():
        pass
    assert await pool.fetchval("select count(*) from webhook_inbox where processed_at is null") == 0


async def kept(pool: Pool, table: str) -> list[dict[str, Any]]:
    """All rows without what says when and why they were read."""
    rows = [dict(row) for row in await pool.fetch(f"select * from {table} order by 1, 2")]
    return [{name: value for name, value in row.items() if name not in ("asked_at", "seen_event")} for row in rows]


async def test_a_subscription_and_its_invoices_through_a_month(shop: Shop, billing: Billing, pool: Pool) -> None:
    subscription = await shop.subscribe()
    customer, item = subscription.customer, subscription["items"].data[0]
    about = {"object": "subscription", "id": subscription.id}
    await apply_all(pool, billing, [told("customer.subscription.created", about)])
    (row,) = await kept(pool, "stripe_subscriptions")
    assert (row["item"], row["id"], row["customer"], row["price"]) == (
        item.id,
        subscription.id,
        customer,
        shop.price.id,
    )
    assert (row["meter"], row["meter_id"], row["status"]) == (METER, shop.price.recurring.meter, "active")
    first, second = datetime.fromtimestamp(START, UTC), datetime.fromtimestamp(JANUARY, UTC)
    assert (row["started_at"], row["anchor"], row["period_start"], row["period_end"]) == (first, first, first, second)
    await use(shop, customer, 1_234_567, START + DAY)
    await shop.move_to(JANUARY + 60)
    (draft,) = await shop.invoices(customer=customer, status="draft")
    invoice = {"object": "invoice", "id": draft.id}
    await apply_all(pool, billing, [told("invoice.created", invoice), told("customer.subscription.updated", about)])
    periods = await kept(pool, "stripe_subscriptions")
    assert sorted((one["period_start"], one["period_end"]) for one in periods) == [
        (first, second),
        (second, datetime(2027, 2, 1, tzinfo=UTC)),
    ]
    (row,) = await kept(pool, "stripe_invoices")
    assert (row["status"], row["finalized_at"], row["subscription"]) == ("draft", None, subscription.id)
    await shop.move_to(JANUARY + 2 * 3600)
    await apply_all(pool, billing, [told("invoice.finalized", invoice)])
    (row,) = await kept(pool, "stripe_invoices")
    (line,) = json.loads(row["lines"])
    assert row["status"] in ("open", "paid")
    assert row["finalized_at"] is not None
    assert (row["subtotal"], row["total"], row["currency"]) == (123, 123, "usd")
    assert (line["quantity"], line["amount"], line["meter"], line["item"]) == ("1234567", 123, METER, item.id)
    assert (line["since"], line["until"]) == (first.isoformat(), second.isoformat())
    await shop.client.v1.subscriptions.cancel_async(subscription.id)
    await apply_all(pool, billing, [told("customer.subscription.deleted", about)])
    assert {one["status"] for one in await kept(pool, "stripe_subscriptions")} == {"canceled"}


async def test_another_state_of_a_subscription_does_not_end_its_period(
    shop: Shop, billing: Billing, pool: Pool
) -> None:
    """Not paid for, to be cancelled, no longer to be cancelled, cancelled: the present period is what Stripe says."""
    subscription = await shop.subscribe()
    change = shop.client.v1.subscriptions.update_async
    mirror, since = Mirror(StripeReader(billing), MirrorStore(pool)), datetime.fromtimestamp(START, UTC)
    await mirror.sync(since)
    await control(shop.sandbox, "stripe", "/settings", payments="fail")
    await use(shop, subscription.customer, 3_000_000, START + DAY)
    await shop.move_to(JANUARY + 7200)
    steps: list[Any] = [{}, {"cancel_at_period_end": True}, {"cancel_at_period_end": False}]
    for step in steps:
        await change(subscription.id, step)
        await mirror.sync(since)
        item = (await shop.client.v1.subscriptions.retrieve_async(subscription.id))["items"].data[0]
        periods = await pool.fetch("select * from stripe_subscriptions order by period_start")
        assert {row["status"] for row in periods} == {"past_due"}
        found = [(row["period_start"].timestamp(), row["period_end"].timestamp()) for row in periods]
        assert found == [(START, JANUARY), (item.current_period_start, item.current_period_end)]
        assert item.current_period_end > JANUARY + 27 * DAY
    await shop.client.v1.subscriptions.cancel_async(subscription.id)
    await mirror.sync(since)
    assert all(
        row["period_start"] < row["period_end"] for row in await pool.fetch("select * from stripe_subscriptions")
    )


@pytest.mark.parametrize("seed", range(4))
async def test_the_order_and_the_number_of_events_do_not_matter(
    seed: int, shop: Shop, billing: Billing, pool: Pool
) -> None:
    subscription = await shop.subscribe()
    customer = subscription.customer
    await use(shop, customer, 50_000_000, START + DAY)
    await shop.move_to(JANUARY + 2 * 3600)
    (final,) = await shop.invoices(customer=customer)
    note: Any = {"invoice": final.id, "amount": 1000, "credit_amount": 1000}
    credit_note = await shop.client.v1.credit_notes.create_async(note)
    given: Any = {
        "customer": customer, "amount": {"type": "monetary", "monetary": {"currency": "usd", "value": 700}},
        "applicability_config": {"scope": {"price_type": "metered"}}, "category": "paid",
    }  # fmt: skip
    grant = await shop.client.v1.billing.credit_grants.create_async(given)
    await shop.client.v1.subscriptions.cancel_async(subscription.id)
    await shop.client.v1.customers.delete_async(customer)
    of = {"object": "invoice", "id": final.id}
    events = [
        told("customer.created", {"object": "customer", "id": customer}),
        told("customer.deleted", {"object": "customer", "id": customer}),
        *(
            told(f"customer.subscription.{what}", {"object": "subscription", "id": subscription.id})
            for what in ("created", "updated", "deleted")
        ),
        *(told(f"invoice.{what}", of) for what in ("created", "updated", "finalized", "paid")),
        told("credit_note.created", {"object": "credit_note", "id": credit_note.id, "invoice": final.id}),
        told("billing.credit_grant.created", {"object": "billing.credit_grant", "id": grant.id}),
        told("charge.succeeded", {"object": "charge", "id": "ch_1"}),
        told("invoice.upcoming", {"object": "invoice"}),
    ]
    events += events[seed::2]
    shuffled = random.Random(seed)
    shuffled.shuffle(events)
    for start in range(0, len(events), 5):
        await apply_all(pool, billing, events[start : start + 5])
    (invoice,) = await kept(pool, "stripe_invoices")
    now = await shop.client.v1.invoices.retrieve_async(final.id)
    assert (invoice["status"], invoice["total"], invoice["credited"]) == (now.status, 5000, 1000)
    assert [row["status"] for row in await kept(pool, "stripe_subscriptions")] == ["canceled"]
    assert [row["is_deleted"] for row in await kept(pool, "stripe_customers")] == [True]
    (row,) = await kept(pool, "stripe_credit_grants")
    assert (row["amount"], row["category"], row["customer"]) == (700, "paid", customer)
    remarks = {row["event_type"]: row["last_error"] for row in await pool.fetch("select * from webhook_inbox")}
    assert remarks["charge.succeeded"] == remarks["invoice.upcoming"] == "about nothing that is kept here"
    assert remarks["invoice.paid"] is None


async def test_an_answer_that_was_asked_for_earlier_replaces_nothing(shop: Shop, billing: Billing, pool: Pool) -> None:
    """Two workers ask at about the same time, and the one that asked first writes last."""
    subscription = await shop.subscribe()
    reader, store = StripeReader(billing), MirrorStore(pool)
    early = await store.now()
    old = await reader.subscription(subscription.id)
    assert old is not None
    await shop.client.v1.subscriptions.cancel_async(subscription.id)
    new = await reader.subscription(subscription.id)
    assert new is not None
    await store.keep_subscription(subscription.id, new, await store.now(), "evt_new")
    await store.keep_subscription(subscription.id, old, early, "evt_old")
    assert [row["status"] for row in await kept(pool, "stripe_subscriptions")] == ["canceled"]
    customer = await reader.customer(subscription.customer)
    assert customer is not None
    await store.keep_customer(customer._replace(is_deleted=True), await store.now(), "evt_new")
    await store.keep_customer(customer, early, "evt_old")
    assert [row["is_deleted"] for row in await kept(pool, "stripe_customers")] == [True]


async def test_a_backlog_of_events_is_not_asked_about_one_by_one(shop: Shop, billing: Billing, pool: Pool) -> None:
    subscription = await shop.subscribe()
    about = {"object": "subscription", "id": subscription.id}
    await apply_all(pool, billing, [told("customer.subscription.updated", about)])
    at = await pool.fetchval("select max(asked_at) from stripe_subscriptions")
    early = int((at - FRESH).timestamp()) - 1
    await apply_all(pool, billing, [told("customer.subscription.updated", about, created=early - n) for n in range(3)])
    assert await pool.fetchval("select max(asked_at) from stripe_subscriptions") == at
    await apply_all(pool, billing, [told("customer.subscription.updated", about, created=early + 2)])
    assert await pool.fetchval("select max(asked_at) from stripe_subscriptions") > at


async def test_sync_finds_what_no_webhook_told(shop: Shop, billing: Billing, pool: Pool) -> None:
    subscription = await shop.subscribe()
    ended = await shop.subscribe()
    await shop.client.v1.subscriptions.cancel_async(ended.id)
    await use(shop, subscription.customer, 1_000_000, START + DAY)
    await shop.move_to(JANUARY + 60)
    mirror = Mirror(StripeReader(billing), MirrorStore(pool))
    since = datetime.fromtimestamp(START, UTC)
    about = {"object": "subscription", "id": subscription.id}
    await apply_all(pool, billing, [told("customer.subscription.created", about)])
    assert await pool.fetchval("select count(*) from stripe_subscriptions where seen_event is null") == 0
    synced = await mirror.sync(since)
    await apply_all(pool, billing, [told("customer.subscription.updated", about)])
    assert await pool.fetchval("select count(*) from stripe_subscriptions where seen_event is null") == 2
    assert synced == MirrorSynced(2, len(await shop.invoices()), 0)
    assert {row["status"] for row in await kept(pool, "stripe_subscriptions")} == {"active", "canceled"}
    assert "draft" in {row["status"] for row in await kept(pool, "stripe_invoices")}
    await shop.move_to(JANUARY + 2 * 3600)
    later = datetime.fromtimestamp(JANUARY + DAY, UTC)  # the draft is older, and is read all the same
    assert (await mirror.sync(later)).invoices == 1
    assert "draft" not in {row["status"] for row in await kept(pool, "stripe_invoices")}


async def test_more_lines_and_invoices_than_one_page_has(shop: Shop, billing: Billing) -> None:
    """Stripe tells ten lines with an invoice, and a hundred objects on a page."""
    subscription = await shop.subscribe()
    await use(shop, subscription.customer, 1_000_000, START + DAY)
    for number in range(115):
        item: Any = {"customer": subscription.customer, "amount": number + 1, "currency": "usd"}
        await shop.client.v1.invoice_items.create_async(item)
    await shop.move_to(JANUARY + 2 * 3600)
    (final,) = await shop.invoices(customer=subscription.customer)
    assert (len(final.lines.data), final.lines.has_more) == (10, True)
    reader = StripeReader(billing)
    invoice = await reader.invoice(final.id)
    assert invoice is not None
    assert len({line.id for line in invoice.lines}) == len(invoice.lines) == 116
    assert sum(line.amount for line in invoice.lines) == invoice.subtotal == 100 + sum(range(1, 116))
    assert [line.quantity for line in invoice.lines if line.meter == METER] == ["1000000"]
    for _ in range(102):
        await shop.client.v1.invoices.create_async({"customer": subscription.customer})
    read = [one.id async for one in reader.invoices(datetime.fromtimestamp(START, UTC))]
    assert len(set(read)) == len(read) == 103


async def test_a_customer_whom_a_parameter_names_may_be_gone(shop: Shop, billing: Billing) -> None:
    """400 `resource_missing`, not 404: the customer is in the query of the summary."""
    customer = (await shop.client.v1.customers.create_async({})).id
    given: Any = {
        "customer": customer, "amount": {"type": "monetary", "monetary": {"currency": "usd", "value": 700}},
        "applicability_config": {"scope": {"price_type": "metered"}}, "category": "paid",
    }  # fmt: skip
    await shop.client.v1.billing.credit_grants.create_async(given)

    await control(shop.sandbox, "stripe", "", path="/credit_balance_summary", status=400, code="resource_missing")
    (grant,) = [one async for one in StripeReader(billing).credit_grants()]
    assert (grant.amount, grant.available) == (700, None)


async def test_what_is_not_ours_is_acknowledged_and_left(shop: Shop, billing: Billing, pool: Pool) -> None:
    about = {"object": "customer", "id": "cus_other"}
    live = told("customer.updated", about, livemode=True)
    connected = told("customer.updated", about, account="acct_other")
    await apply_all(pool, billing, [live, connected])
    assert await kept(pool, "stripe_customers") == []
    rows = await pool.fetch("select last_error from webhook_inbox order by event_id")
    assert ["other mode" in rows[0][0], "connected" in rows[1][0]] == [True, True]


async def test_an_event_that_cannot_be_applied_holds_up_nobody(shop: Shop, billing: Billing, pool: Pool) -> None:
    subscription = await shop.subscribe()
    bad = WebhookEvent("bad", "x", None, b"{")
    good = told("customer.subscription.updated", {"object": "subscription", "id": subscription.id})
    await StripeInbox(pool).store([bad, good])
    worker = work(pool, billing)
    while await worker.step_once():
        pass
    assert len(await kept(pool, "stripe_subscriptions")) == 1
    assert await pool.fetchval("select attempts from webhook_inbox where event_id = 'bad'") == ATTEMPTS_MAX
    counts = await StripeInbox(pool).counts()
    assert (counts.new, counts.failed, counts.given_up) == (0, 1, 1)
