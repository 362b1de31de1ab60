"""Prices and subscriptions of the Stripe stand-in, judged by Stripe's own SDK: anchors, changes, cancellation."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import stripe
from hypothesis import given
from hypothesis import strategies as st

from gateway.sandbox.stripe.cycles import boundary, next_boundary
from tests.support.stripe_shop import DAY, HOUR, JANUARY, START, Shop


def instant(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


async def test_prices(shop: Shop) -> None:
    prices = shop.client.v1.prices
    assert (shop.price.unit_amount, shop.price.unit_amount_decimal, shop.price.type) == (
        None, Decimal("0.0001"), "recurring",
    )  # fmt: skip
    by_key: Any = {"lookup_keys": ["openai_usage"]}
    assert [one.id for one in (await prices.list_async(by_key)).data] == [shop.price.id]
    wanted: Any = {
        "currency": "usd",
        "product": shop.price.product,
        "unit_amount": 5,
        "recurring": {"interval": "month", "usage_type": "metered", "meter": shop.price.recurring.meter},
        "lookup_key": "openai_usage",
    }
    with pytest.raises(stripe.InvalidRequestError, match="already uses that lookup key"):
        await prices.create_async(wanted)
    moved = await prices.create_async(wanted | {"transfer_lookup_key": True})
    assert (moved.unit_amount, moved.unit_amount_decimal) == (5, Decimal(5))
    assert [one.id for one in (await prices.list_async(by_key)).data] == [moved.id]
    assert (await prices.retrieve_async(shop.price.id)).lookup_key is None
    await prices.update_async(shop.price.id, {"active": False, "nickname": "old"})
    assert [one.id for one in (await prices.list_async({"active": True})).data] == [moved.id]
    dearer: Any = {"unit_amount": 6}
    with pytest.raises(stripe.InvalidRequestError, match="unknown parameter: unit_amount"):
        await prices.update_async(moved.id, dearer)
    product = await shop.client.v1.products.retrieve_async(shop.price.product)
    assert product.name == "OpenAI usage"
    await shop.client.v1.products.update_async(product.id, {"name": "Usage"})
    assert [one.name for one in (await shop.client.v1.products.list_async()).data] == ["Usage"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"recurring": {"interval": "month", "usage_type": "metered"}},
        {"recurring": {"interval": "month", "usage_type": "metered", "meter": "mtr_none"}},
        {"recurring": {"interval": "month", "usage_type": "licensed"}},
        {"unit_amount_decimal": "0.0000000000001"},
        {"unit_amount_decimal": "-1"},
        {"tiers_mode": "graduated"},
    ],
)
async def test_a_price_that_nothing_would_bill_is_refused(shop: Shop, wrong: Any) -> None:
    fine: Any = {"currency": "usd", "product": shop.price.product, "unit_amount_decimal": "1"}
    with pytest.raises(stripe.InvalidRequestError):
        await shop.client.v1.prices.create_async(fine | wrong)


@pytest.mark.parametrize(
    ("now", "fields", "ends"),
    [
        ("2026-12-01", {}, ["2027-01-01", "2027-02-01"]),
        ("2026-12-31T10:00", {}, ["2027-01-31T10:00", "2027-02-28T10:00", "2027-03-31T10:00"]),
        (
            "2026-12-10T10:00",
            {"billing_cycle_anchor": instant("2026-12-15T06:30")},
            ["2026-12-15T06:30", "2027-01-15T06:30"],
        ),
        (
            "2027-02-03T04:05:06",
            {"billing_cycle_anchor_config": {"day_of_month": 31, "hour": 0, "minute": 0, "second": 0}},
            ["2027-02-28", "2027-03-31", "2027-04-30"],
        ),
        ("2027-02-03T04:05:06", {"billing_cycle_anchor_config": {"day_of_month": 1}}, ["2027-03-01T04:05:06"]),
    ],
)
async def test_periods_end_where_the_anchor_says(shop: Shop, now: str, fields: Any, ends: list[str]) -> None:
    await shop.move_to(instant(now))
    subscription = await shop.subscribe(**fields)
    starts = [now, *ends]
    for start, end in zip(starts, ends, strict=False):
        (item,) = (await shop.client.v1.subscriptions.retrieve_async(subscription.id))["items"].data
        assert (item.current_period_start, item.current_period_end) == (instant(start), instant(end))
        await shop.move_to(instant(end))
    assert [one.period_end for one in await shop.invoices()] == [instant(end) for end in ends[::-1]]


async def test_an_anchor_too_far_ahead_is_refused(shop: Shop) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="next natural billing date"):
        await shop.subscribe(billing_cycle_anchor=JANUARY + 1)


@given(
    st.integers(1_000_000_000, 3_000_000_000),
    st.sampled_from(["day", "week", "month", "year"]),
    st.integers(1, 12),
    st.integers(-30, 30),
    st.data(),
)
def test_a_boundary_is_the_first_after_an_instant(
    anchor: int, interval: str, count: int, number: int, data: st.DataObject
) -> None:
    before, found = boundary(anchor, interval, count, number), boundary(anchor, interval, count, number + 1)
    after = data.draw(st.integers(before, found - 1))
    assert next_boundary(anchor, interval, count, after) == found


async def test_classic_begins_with_an_invoice_of_nothing(shop: Shop) -> None:
    subscription = await shop.subscribe(billing_mode={"type": "classic"})
    (invoice,) = await shop.invoices()
    assert (invoice.billing_reason, invoice.status, invoice.total) == ("subscription_create", "paid", 0)
    assert (await shop.client.v1.subscriptions.retrieve_async(subscription.id)).latest_invoice == invoice.id


async def test_a_stub_without_proration_is_not_billed(shop: Shop) -> None:
    anchor = START + 10 * DAY
    free = await shop.subscribe(billing_cycle_anchor=anchor, proration_behavior="none")
    billed = await shop.subscribe(billing_cycle_anchor=anchor)
    for one in (free, billed):
        await shop.use(one.customer, 1_000_000, START)
    await shop.move_to(anchor + HOUR)
    assert await shop.invoices(customer=free.customer) == []
    assert [one.total for one in await shop.invoices(customer=billed.customer)] == [100]
    await shop.use(free.customer, 2_000_000, anchor)
    await shop.move_to(anchor + 31 * DAY + HOUR)
    assert [one.total for one in await shop.invoices(customer=free.customer)] == [200]


async def test_usage_before_the_subscription_is_not_billed(shop: Shop) -> None:
    customer = (await shop.client.v1.customers.create_async({})).id
    await shop.use(customer, 1_000_000, START - 1)
    await shop.subscribe(customer)
    await shop.move_to(JANUARY + HOUR)
    assert [one.total for one in await shop.invoices()] == [0]


async def test_cancelled_at_once_drops_the_usage_unless_it_is_invoiced(shop: Shop) -> None:
    dropped, invoiced, left = [await shop.subscribe() for _ in range(3)]
    for one in (dropped, invoiced, left):
        await shop.use(one.customer, 1_000_000, START)
    await shop.move_to(START + DAY)
    options: list[Any] = [{}, {"invoice_now": True}, {"prorate": True}]
    for one, option in zip((dropped, invoiced, left), options, strict=True):
        gone = await shop.client.v1.subscriptions.cancel_async(one.id, option)
        assert (gone.status, gone.ended_at) == ("canceled", START + DAY)
    assert await shop.invoices(customer=dropped.customer) == []
    assert [(one.status, one.total) for one in await shop.invoices(customer=invoiced.customer)] == [("paid", 100)]
    assert await shop.invoices(customer=left.customer) == []
    waiting = (await shop.client.v1.invoice_items.list_async({"customer": left.customer, "pending": True})).data
    assert [(one.amount, one.invoice) for one in waiting] == [(100, None)]
    await shop.move_to(JANUARY + HOUR)
    assert len(await shop.invoices()) == 1
    with pytest.raises(stripe.InvalidRequestError, match="No such subscription"):
        await shop.client.v1.subscriptions.cancel_async(dropped.id)


async def test_cancelled_at_the_period_end_is_billed_with_grace(shop: Shop) -> None:
    subscription = await shop.subscribe()
    ends: Any = {"cancel_at_period_end": True}
    changed = await shop.client.v1.subscriptions.update_async(subscription.id, ends)
    assert (changed.status, changed.cancel_at) == ("active", JANUARY)
    await shop.move_to(JANUARY + HOUR - 1)
    gone = await shop.client.v1.subscriptions.retrieve_async(subscription.id)
    assert (gone.status, gone.ended_at) == ("canceled", JANUARY)
    await shop.use(subscription.customer, 1_000_000, JANUARY - 1)
    await shop.move_to(JANUARY + 40 * DAY)
    assert [one.total for one in await shop.invoices()] == [100]


async def test_cancel_at_ends_the_period_early_and_may_be_taken_back(shop: Shop) -> None:
    subscription = await shop.subscribe()
    early: Any = {"cancel_at": START + DAY}
    changed = await shop.client.v1.subscriptions.update_async(subscription.id, early)
    assert changed["items"].data[0].current_period_end == START + DAY
    back = await shop.client.v1.subscriptions.update_async(subscription.id, {"cancel_at": ""})
    assert back["items"].data[0].current_period_end == JANUARY
    await shop.move_to(JANUARY)
    assert (await shop.client.v1.subscriptions.retrieve_async(subscription.id)).status == "active"
    assert len(await shop.invoices()) == 1


async def other_price(shop: Shop) -> Any:
    wanted: Any = {
        "currency": "usd",
        "product": shop.price.product,
        "unit_amount_decimal": "0.0002",
        "recurring": {"interval": "month", "usage_type": "metered", "meter": shop.price.recurring.meter},
    }
    return await shop.client.v1.prices.create_async(wanted)


@pytest.mark.parametrize(("mode", "amounts"), [("flexible", [100, 400]), ("classic", [400])])
async def test_a_price_that_changes_within_a_period(shop: Shop, mode: str, amounts: list[int]) -> None:
    subscription = await shop.subscribe(billing_mode={"type": mode})
    dearer = await other_price(shop)
    await shop.use(subscription.customer, 1_000_000, START)
    await shop.move_to(START + DAY)
    change: Any = {"items": [{"id": subscription["items"].data[0].id, "price": dearer.id}]}
    await shop.client.v1.subscriptions.update_async(subscription.id, change)
    await shop.use(subscription.customer, 2_000_000, START + DAY)
    await shop.move_to(JANUARY + 1)
    await shop.use(subscription.customer, 4_000_000, JANUARY - 1)  # in the grace of a changed price: on no invoice
    await shop.move_to(JANUARY + HOUR)
    invoice = (await shop.invoices())[0]
    assert [line.amount for line in invoice.lines.data] == amounts


async def test_an_item_that_is_removed_leaves_its_usage_for_the_next_invoice(shop: Shop) -> None:
    subscription = await shop.subscribe()
    dearer = await other_price(shop)
    await shop.use(subscription.customer, 1_000_000, START)
    await shop.move_to(START + DAY)
    first = subscription["items"].data[0].id
    change: Any = {"items": [{"price": dearer.id}, {"id": first, "deleted": True}]}
    changed = await shop.client.v1.subscriptions.update_async(subscription.id, change)
    assert [item.price.id for item in changed["items"].data] == [dearer.id]
    await shop.use(subscription.customer, 1_000_000, START + DAY)
    await shop.move_to(JANUARY + HOUR)
    (invoice,) = await shop.invoices()
    assert sorted(line.amount for line in invoice.lines.data) == [100, 200]
    with pytest.raises(stripe.InvalidRequestError, match="No such subscription_item"):
        await shop.client.v1.subscription_items.retrieve_async(first)


async def test_the_anchor_is_reset_now(shop: Shop) -> None:
    subscription = await shop.subscribe()
    await shop.use(subscription.customer, 1_000_000, START)
    await shop.move_to(START + DAY)
    now: Any = {"billing_cycle_anchor": {"type": "now"}}
    changed = await shop.client.v1.subscriptions.update_async(subscription.id, now)
    (item,) = changed["items"].data
    assert (changed.billing_cycle_anchor, item.current_period_start) == (START + DAY, START + DAY)
    assert item.current_period_end == JANUARY + DAY
    await shop.move_to(JANUARY + HOUR)
    assert [one.total for one in await shop.invoices()] == [100]


async def test_lists_of_subscriptions(shop: Shop) -> None:
    kept, gone = await shop.subscribe(), await shop.subscribe()
    await shop.client.v1.subscriptions.cancel_async(gone.id)
    listed = shop.client.v1.subscriptions.list_async
    queries: list[tuple[Any, list[str]]] = [
        ({}, [kept.id]),
        ({"status": "all"}, [gone.id, kept.id]),
        ({"status": "canceled"}, [gone.id]),
        ({"status": "all", "customer": kept.customer}, [kept.id]),
        ({"price": shop.price.id}, [kept.id]),
        ({"price": "price_none"}, []),
        ({"current_period_end": {"lt": JANUARY}}, []),
    ]
    for query, ids in queries:
        page = await listed(query | {"limit": 1})
        assert [one.id async for one in page.auto_paging_iter()] == ids
    items = await shop.client.v1.subscription_items.list_async({"subscription": kept.id})
    assert [one.price.id for one in items.data] == [shop.price.id]


async def test_a_deleted_customer_has_no_subscription(shop: Shop) -> None:
    subscription = await shop.subscribe()
    await shop.use(subscription.customer, 1_000_000, START)
    await shop.client.v1.customers.delete_async(subscription.customer)
    assert (await shop.client.v1.subscriptions.retrieve_async(subscription.id)).status == "canceled"
    await shop.move_to(JANUARY + HOUR)
    assert await shop.invoices() == []
    with pytest.raises(stripe.InvalidRequestError, match="No such customer"):
        await shop.subscribe(subscription.customer)


@pytest.mark.parametrize(
    "wrong",
    [
        {"items": []},
        {"items": [{"price": "price_none"}]},
        {"trial_period_days": 3},
        {"collection_method": "send_invoice"},
        {"billing_cycle_anchor": START - 1},
        {"billing_cycle_anchor_config": {"day_of_month": 32}},
    ],
)
async def test_a_subscription_that_is_refused(shop: Shop, wrong: Any) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        await shop.subscribe(**wrong)
