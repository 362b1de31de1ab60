"""Invoices of metered subscriptions at the Stripe stand-in, judged by Stripe's own SDK: periods, grace, late usage."""

from decimal import Decimal
from typing import Any

import pytest
import stripe

from tests.support.stand_ins import control
from tests.support.stripe_shop import DAY, HOUR, JANUARY, START, Shop


async def test_a_cycle_from_draft_to_paid(shop: Shop) -> None:
    subscription = await shop.subscribe(metadata={"plan": "pro"})
    (item,) = subscription["items"].data
    assert (subscription.status, subscription.billing_mode.type, subscription.latest_invoice) == (
        "active", "flexible", None,
    )  # fmt: skip
    assert (item.current_period_start, item.current_period_end) == (START, JANUARY)
    assert await shop.invoices() == []  # flexible: no empty first invoice
    await shop.move_to(START + DAY)
    await shop.use(subscription.customer, 1_500_000, START + HOUR)
    await shop.use(subscription.customer, 2_000_000, START + 2 * HOUR)
    await shop.move_to(JANUARY)
    (draft,) = await shop.invoices(subscription=subscription.id)
    assert (draft.status, draft.billing_reason, draft.automatically_finalizes_at, draft.created) == (
        "draft", "subscription_cycle", JANUARY + HOUR, JANUARY,
    )  # fmt: skip
    assert (draft.period_start, draft.period_end, draft.number, draft.total) == (START, JANUARY, None, 350)
    renewed = await shop.client.v1.subscriptions.retrieve_async(subscription.id)
    (item,) = renewed["items"].data
    assert (item.current_period_start, item.current_period_end) == (JANUARY, JANUARY + 31 * DAY)
    assert renewed.latest_invoice == draft.id
    await shop.move_to(JANUARY + HOUR)
    paid = await shop.client.v1.invoices.retrieve_async(draft.id)
    assert (paid.status, paid.amount_due, paid.amount_paid, paid.amount_remaining) == ("paid", 350, 350, 0)
    assert (paid.status_transitions.finalized_at, paid.automatically_finalizes_at) == (JANUARY + HOUR, None)
    assert paid.number is not None
    (line,) = paid.lines.data
    assert (line.quantity, line.quantity_decimal, line.amount) == (3_500_000, Decimal(3_500_000), 350)
    assert (line.period.start, line.period.end) == (START, JANUARY)
    assert line.pricing is not None
    assert line.pricing.price_details is not None
    assert (line.pricing.price_details.price, line.pricing.unit_amount_decimal) == (shop.price.id, Decimal("0.0001"))
    assert line.parent is not None
    assert line.parent.subscription_item_details is not None
    details = line.parent.subscription_item_details
    assert (details.subscription, details.subscription_item) == (subscription.id, item.id)
    assert paid.parent is not None
    assert paid.parent.subscription_details is not None
    assert paid.parent.subscription_details.metadata is not None
    assert paid.parent.subscription_details.metadata["plan"] == "pro"
    assert line.description == "3500000 × OpenAI usage (at $0.000001 / month)"


async def test_usage_within_the_grace_counts_and_later_usage_is_on_no_invoice(shop: Shop) -> None:
    subscription = await shop.subscribe()
    who = subscription.customer
    await shop.use(who, 1_000_000, START)
    await shop.move_to(JANUARY + HOUR - 1)
    await shop.use(who, 2_000_000, JANUARY - 1)  # of December, and in time
    await shop.use(who, 4_000_000, JANUARY)  # of January
    await shop.move_to(JANUARY + HOUR)
    await shop.use(who, 8_000_000, JANUARY - 1)  # of December, and too late
    february = JANUARY + 31 * DAY
    await shop.move_to(february + HOUR)
    newer, older = await shop.invoices(customer=who)
    assert (older.total, newer.total) == (300, 400)
    assert await shop.summed(who, START, JANUARY) == [11_000_000]  # the summaries show what nobody is billed for


@pytest.mark.parametrize("grace_h", [0, 24, 72])
async def test_the_grace_is_the_accounts(shop: Shop, grace_h: int) -> None:
    await control(shop.sandbox, "stripe", "/settings", grace_h=grace_h)
    subscription = await shop.subscribe()
    await shop.move_to(JANUARY + grace_h * HOUR - 1 if grace_h else JANUARY - 1)
    await shop.use(subscription.customer, 1_000_000, JANUARY - 1)
    drafts = await shop.invoices()
    assert [one.automatically_finalizes_at for one in drafts] == ([JANUARY + grace_h * HOUR] if grace_h else [])
    await shop.move_to(JANUARY + grace_h * HOUR)
    assert [(one.status, one.total) for one in await shop.invoices()] == [("paid", 100)]


async def test_a_grace_of_more_than_three_days_is_refused(shop: Shop) -> None:
    with pytest.raises(AssertionError, match="grace_h: 0 to 72"):
        await control(shop.sandbox, "stripe", "/settings", grace_h=73)


async def test_a_negative_cycle_is_billed_as_nothing(shop: Shop) -> None:
    subscription = await shop.subscribe()
    await shop.use(subscription.customer, -5_000_000, START)
    await shop.move_to(JANUARY + HOUR)
    (invoice,) = await shop.invoices()
    (line,) = invoice.lines.data
    assert (invoice.status, invoice.total, line.quantity, line.amount) == ("paid", 0, 0, 0)
    await shop.use(subscription.customer, 7_000_000, JANUARY)
    await shop.move_to(JANUARY + 31 * DAY + HOUR)
    assert [one.total for one in await shop.invoices()] == [700, 0]  # nothing is carried over


@pytest.mark.parametrize(
    ("used", "cents"),
    [("10004999", 1000), ("10005000", 1001), ("10000000.5", 1000), ("4999", 0), ("1234567.891", 123)],
)
async def test_a_line_is_rounded_to_the_nearest_cent(shop: Shop, used: str, cents: int) -> None:
    subscription = await shop.subscribe()
    await shop.use(subscription.customer, used, START)
    await shop.move_to(JANUARY)
    (invoice,) = await shop.invoices()
    (line,) = invoice.lines.data
    assert (line.amount, line.quantity, line.quantity_decimal) == (cents, int(Decimal(used)), Decimal(used))


async def test_what_is_too_small_to_charge_is_owed_next_time(shop: Shop) -> None:
    subscription = await shop.subscribe()
    await shop.use(subscription.customer, 300_000, START)
    await shop.move_to(JANUARY + HOUR)
    (first,) = await shop.invoices()
    assert (first.status, first.total, first.amount_due, first.ending_balance) == ("paid", 30, 0, 30)
    await shop.use(subscription.customer, 400_000, JANUARY)
    await shop.move_to(JANUARY + 31 * DAY + HOUR)
    second = (await shop.invoices())[0]
    assert (second.total, second.starting_balance, second.amount_due, second.ending_balance) == (40, 30, 70, 0)


async def test_months_pass_in_one_move(shop: Shop) -> None:
    subscription = await shop.subscribe()
    await shop.use(subscription.customer, 1_000_000, START)
    await shop.move_to(JANUARY + 59 * DAY + 2 * HOUR)  # 1 March
    found = await shop.invoices(status="paid")
    assert [(one.period_start, one.total) for one in found] == [
        (JANUARY + 31 * DAY, 0), (JANUARY, 0), (START, 100),
    ]  # fmt: skip
    assert [one.status_transitions.finalized_at - one.created for one in found] == [HOUR] * 3
    assert len({one.number for one in found}) == 3


async def test_lists_are_filtered_and_paged(shop: Shop) -> None:
    kept = [await shop.subscribe() for _ in range(3)]
    await shop.move_to(JANUARY + HOUR)
    await shop.move_to(JANUARY + 31 * DAY)
    assert len(await shop.invoices(limit=1)) == 6
    assert len(await shop.invoices(limit=2, status="draft")) == 3
    assert len(await shop.invoices(customer=kept[0].customer)) == 2
    assert len(await shop.invoices(subscription=kept[1].id, status="paid")) == 1
    assert len(await shop.invoices(created={"gte": JANUARY + 1})) == 3
    newest = (await shop.client.v1.invoices.list_async({"limit": 3})).data
    before = await shop.client.v1.invoices.list_async({"ending_before": newest[2].id, "limit": 2})
    assert [one.id for one in before.data] == [newest[0].id, newest[1].id]
    lines = await shop.client.v1.invoices.line_items.list_async(newest[0].id)
    assert [line.id for line in lines.data] == [line.id for line in newest[0].lines.data]


async def test_a_draft_may_be_finalised_by_hand(shop: Shop) -> None:
    subscription = await shop.subscribe()
    await shop.move_to(JANUARY)
    (draft,) = await shop.invoices()
    held: Any = {"auto_advance": False, "description": "held"}
    assert (await shop.client.v1.invoices.update_async(draft.id, held)).automatically_finalizes_at is None
    await shop.move_to(JANUARY + 5 * DAY)
    await shop.use(subscription.customer, 1_000_000, JANUARY - 1)  # a draft that waits takes it
    opened = await shop.client.v1.invoices.finalize_invoice_async(draft.id)
    assert (opened.status, opened.total, opened.description) == ("open", 100, "held")
    with pytest.raises(stripe.InvalidRequestError, match="This invoice is open"):
        await shop.client.v1.invoices.finalize_invoice_async(draft.id)
    assert (await shop.client.v1.invoices.pay_async(draft.id)).status == "paid"


async def test_an_invoice_that_cannot_be_charged(shop: Shop) -> None:
    await control(shop.sandbox, "stripe", "/settings", payments="fail")
    subscription = await shop.subscribe()
    await shop.use(subscription.customer, 1_000_000, START)
    await shop.move_to(JANUARY + HOUR)
    (invoice,) = await shop.invoices()
    assert (invoice.status, invoice.attempted, invoice.amount_remaining) == ("open", True, 100)
    assert (await shop.client.v1.subscriptions.retrieve_async(subscription.id)).status == "past_due"
    with pytest.raises(stripe.CardError):
        await shop.client.v1.invoices.pay_async(invoice.id)
    lost = await shop.client.v1.invoices.mark_uncollectible_async(invoice.id)
    assert lost.status == "uncollectible"
    voided = await shop.client.v1.invoices.void_invoice_async(invoice.id)
    assert (voided.status, voided.status_transitions.voided_at) == ("void", JANUARY + HOUR)
    assert (await shop.client.v1.subscriptions.retrieve_async(subscription.id)).status == "active"


async def test_one_that_is_sent_stays_open_until_it_is_paid(shop: Shop) -> None:
    subscription = await shop.subscribe(collection_method="send_invoice", days_until_due=14)
    await shop.use(subscription.customer, 100_000, START)
    await shop.move_to(JANUARY + HOUR)
    (invoice,) = await shop.invoices()
    assert (invoice.status, invoice.amount_due, invoice.due_date) == ("open", 10, JANUARY + 14 * DAY)
    elsewhere: Any = {"paid_out_of_band": True}
    assert (await shop.client.v1.invoices.pay_async(invoice.id, elsewhere)).status == "paid"
