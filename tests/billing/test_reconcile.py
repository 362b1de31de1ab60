"""`gateway reconcile stripe`: a month of the stand-in from the ledger to the invoice, and why two of them differ."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest

from gateway.accounts.store import Accounts
from gateway.billing.explain.chain import BilledLine, OutboxEvent
from gateway.billing.filing import Subscription
from gateway.billing.reconcile.compare import FAILS, PayerMonth, compare_month
from gateway.ledger.store import Ledger
from gateway.stores.postgres import Pool
from tests.billing.billed_month import FIRST, Month, open_month
from tests.conftest import METER
from tests.support.invoke import gateway
from tests.support.stand_ins import control
from tests.support.stripe_shop import DAY, JANUARY, START

UNTIL = FIRST + timedelta(days=31)


@pytest.fixture
async def month(ledger: Ledger) -> AsyncIterator[Month]:
    async with open_month(ledger) as made:
        yield made


async def reconcile(month: Month, database_url: str) -> tuple[int, Any]:
    arguments = ("reconcile", "stripe", "--month", "2026-12")
    done = await gateway(month.environment(database_url), *arguments, "--json")
    assert done.error == ""
    shown = await gateway(month.environment(database_url), *arguments)
    assert (shown.status, shown.error) == (done.status, "")
    return done.status, json.loads(done.out)


def causes(result: Any, customer: str | None) -> dict[str, str]:
    (own,) = (one for one in result["customers"] if one["customer"] == customer)
    return {each["cause"]: each["usd"] for each in own["differences"]}


async def test_what_was_billed_by_decision_is_told_on_both_sides(month: Month, database_url: str, pool: Pool) -> None:
    nobody = await Accounts(pool).create_user("nobody@example.com")
    await month.book(nobody, 3, 14_430_000_000)
    links = ("users", "set", "nobody@example.com", "--stripe-customer", month.customer, "--accrued", "bill", "--yes")
    assert (await gateway(month.environment(database_url), *links)).error == ""
    shown = await gateway(month.environment(database_url), "reconcile", "stripe", "--month", "2026-12")
    for who, usd in ((month.customer, "14.430000000"), ("before anybody paid", "-14.430000000")):
        assert f"  {who}: {usd} USD: accrued before anybody paid, billed to a customer by decision" in shown.out


async def test_a_month_whose_every_difference_has_its_cause(month: Month, database_url: str, pool: Pool) -> None:
    ann, bob = await month.add_user("ann"), await month.add_user("bob")
    nobody = await Accounts(pool).create_user("nobody@example.com")
    await month.book(ann, 1, 1_234_567, 999)
    await month.book(bob, 200, 50_000_000_001)
    await month.book(nobody, 3, 14_430_000_000)
    await month.report(JANUARY + 600)
    invoice = await month.invoice()
    status, result = await reconcile(month, database_url)
    (own,) = (one for one in result["customers"] if one["customer"] == month.customer)
    assert (status, result["is_explained"]) == (0, True)
    assert (own["ledger_usd"], own["windows_usd"]) == ("50.001235567", "50.001235567")
    assert own["events_usd"] == {"delivered": "50.001235000"}
    assert own["summaries_usd"] == own["invoiced_usd"] == own["filed_in_month_usd"] == "50.001235000"
    assert [*own["lines"]] == [line.id for line in invoice.lines.data]
    assert causes(result, month.customer) == {"rounding": "-0.000000567"}
    (other,) = (one for one in result["customers"] if one["customer"] is None)
    assert (other["ledger_usd"], other["open_usd"]) == ("14.430000000", "14.430000000")


async def test_what_waits_and_what_is_held(month: Month, database_url: str, pool: Pool) -> None:
    ann = await month.add_user("ann")
    await month.book(ann, 1, 3_000_000)
    await month.report(START + DAY)
    await month.shop.client.v1.customers.delete_async(month.customer)
    await month.book(ann, 30, 5_000_000)
    await month.report(START + 3 * DAY)
    # Stripe's month is ahead of the clock by which its summaries lag behind.
    await pool.execute("update stripe_meter_events set delivered_at = now() - interval '1 hour'")
    status, result = await reconcile(month, database_url)
    assert status == 1  # Stripe never counts it
    assert causes(result, month.customer)["unexplained"] == "-0.005000000"
    await pool.execute(
        "update stripe_meter_events set state = 'rejected', delivered_at = null, last_error = 'x' where value = 5000"
    )
    status, result = await reconcile(month, database_url)
    found = {"held": "-0.005000000", "not invoiced": "-0.003000000"}
    assert (status, causes(result, month.customer)) == (0, found)


async def test_more_at_stripe_than_was_delivered_fails(month: Month, database_url: str) -> None:
    ann = await month.add_user("ann")
    await month.book(ann, 1, 3_000_000)
    await month.report(START + DAY)
    await month.shop.use(month.customer, 500, START + DAY, "of somebody else")
    status, result = await reconcile(month, database_url)
    found = {"foreign": "0.000500000", "not invoiced": "-0.003000000"}
    assert (status, causes(result, month.customer)) == (1, found)


async def test_usage_that_two_subscriptions_bill_fails(month: Month, database_url: str) -> None:
    ann = await month.add_user("ann")
    await month.shop.subscribe(month.customer)
    await month.book(ann, 1, 3_000_000)
    await month.report(JANUARY + 600)
    await month.shop.move_to(JANUARY + 2 * 3600)
    await month.sync()
    status, result = await reconcile(month, database_url)
    assert (status, causes(result, month.customer)) == (1, {"foreign": "0.003000000"})


async def test_a_void_invoice_and_lines_of_other_products(month: Month, database_url: str) -> None:
    """Exit 0: the usage of a void invoice is billed by nobody, and that is said; other lines are not ours."""
    client, ann = month.shop.client.v1, await month.add_user("ann")
    item: Any = {"customer": month.customer, "amount": 900, "currency": "usd", "description": "a licence"}
    await client.invoice_items.create_async(item)
    given: Any = {"display_name": "theirs", "event_name": "theirs", "default_aggregation": {"formula": "sum"}}
    other = await client.billing.meters.create_async(given)
    wanted: Any = {
        "currency": "usd", "product_data": {"name": "theirs"}, "unit_amount_decimal": "1",
        "recurring": {"interval": "month", "usage_type": "metered", "meter": other.id},
    }  # fmt: skip
    price = await client.prices.create_async(wanted)
    await client.subscriptions.update_async(month.subscription.id, {"items": [{"price": price.id}]})
    await month.book(ann, 1, 3_000_000_000)
    await month.report(START + DAY)
    payload = {"stripe_customer_id": month.customer, "value": "70"}
    await client.billing.meter_events.create_async(
        {"event_name": "theirs", "payload": payload, "timestamp": START + 99}
    )
    await control(month.shop.sandbox, "stripe", "/settings", payments="fail")
    invoice = await month.invoice()
    assert len(invoice.lines.data) == 3
    status, result = await reconcile(month, database_url)
    (own,) = result["customers"]
    assert (status, own["differences"], len(own["lines"])) == (0, [], 1)
    await client.invoices.void_invoice_async(invoice.id)
    await month.sync()
    status, result = await reconcile(month, database_url)
    assert (status, causes(result, month.customer)) == (0, {"void": "-3.000000000"})
    explained = await gateway(month.environment(database_url), "stripe", "explain", invoice.id, "--json")
    assert (explained.status, len(json.loads(explained.out)["chains"])) == (0, 1)


async def test_a_month_is_asked_for(database_url: str, month: Month) -> None:
    for wrong in ("2026-12-01", "yesterday", "x"):
        done = await gateway(month.environment(database_url), "reconcile", "stripe", "--month", wrong)
        assert done.status == 1
        assert done.error.startswith("--month:")


def event(value: int, state: str = "sent", *, reason: str = "usage", hours_ago: float = 5) -> OutboxEvent:
    at = UNTIL - timedelta(hours=hours_ago)
    delivered = at if state in ("sent", "duplicate") else None
    return OutboxEvent(
        1, uuid4().hex, uuid4(), None, "cus_1", METER, FIRST, FIRST, value, state, reason, None, delivered, None, None
    )


@pytest.mark.parametrize(
    ("events", "counted", "expected"),
    [
        ([event(5)], 5, {}),
        ([event(5), event(7, hours_ago=0.1)], 5, {"in flight": -7000}),
        ([event(5), event(7, "pending")], 12, {"in flight": 7000}),
        ([event(5), event(7, "unknown")], 12, {"held": 7000}),
        ([event(5), event(7, "cancelled")], 12, {"cancelled": 7000}),
        ([event(5)], 6, {"foreign": 1000}),
        ([event(5), event(7)], 5, {"unexplained": -7000}),
        ([event(5), event(7, "settled")], 5, {"settled": -7000}),
        ([event(5), event(7, reason="late")], 12, {"late": -7000}),
    ],
)
def test_each_cause(events: list[OutboxEvent], counted: int, expected: dict[str, int]) -> None:
    frozen = sum(one.value for one in events if one.state != "cancelled") * 1000
    month = PayerMonth("cus_1", "", frozen, frozen, 0, 0, 0, frozen, 0, events, events, ())
    result = compare_month(month, FIRST, UNTIL, {METER: Decimal(counted)}, UNTIL)
    at_stripe = {each.cause: each.nano for each in result.differences}
    for cause, nano in expected.items():
        assert at_stripe[cause] in (nano, -nano)
    assert result.fails is (not expected.keys().isdisjoint(("foreign", "unexplained")))


def test_books_that_do_not_add_up_are_unexplained() -> None:
    short = PayerMonth("cus_1", "", 5000, 4000, 0, 0, 0, 4000, 0, [event(4)], [event(4)], [line(4)])
    (found,) = compare_month(short, FIRST, UNTIL, {METER: Decimal(4)}, UNTIL).differences
    assert (found.cause, found.nano) == ("unexplained", -1000)
    lost = short._replace(ledger=9000, windows_billed=9000, frozen=9000)
    (found,) = compare_month(lost, FIRST, UNTIL, {METER: Decimal(4)}, UNTIL).differences
    assert (found.cause, found.nano) == ("unexplained", -5000)
    unknown = short._replace(ledger=4000)
    (found,) = compare_month(unknown, FIRST, UNTIL, "no such customer", UNTIL).differences
    assert (found.cause, found.nano) == ("unknown customer", -4000)


def line(
    quantity: int, *, status: str = "paid", days: tuple[int, int] = (0, 31), meter: str = METER, currency: str = "usd"
) -> BilledLine:
    since, until = (FIRST + timedelta(days=day) for day in days)
    return BilledLine(
        f"in_{uuid4().hex}", None, status, until, "cus_1", "il_1", quantity // 10_000, currency, Decimal(quantity),
        meter, since, until,
    )  # fmt: skip


def compared(lines: list[BilledLine], *, days_later: float, anchor_day: int | None = None) -> dict[str, int]:
    """What is said of 12 micro-USD that were delivered at the end of the month, and nothing else is wrong with."""
    events = [event(12)._replace(at=UNTIL - timedelta(hours=1))]
    subscriptions = None
    if anchor_day is not None:
        at = FIRST + timedelta(days=anchor_day - 1)
        subscriptions = {METER: [Subscription(at, at, at, at + timedelta(days=31), None)]}
    month = PayerMonth("cus_1", "", 12_000, 12_000, 0, 0, 0, 12_000, 0, events, events, lines, subscriptions)
    result = compare_month(month, FIRST, UNTIL, {METER: Decimal(12)}, UNTIL + timedelta(days=days_later))
    assert result.fails is any(one.cause in FAILS for one in result.differences)
    return {one.cause: one.nano for one in result.differences}


def test_what_is_on_no_invoice_is_said() -> None:
    assert compared([line(12)], days_later=40) == {}
    assert compared([line(12, status="draft")], days_later=0.1) == {}
    assert compared([], days_later=0.9) == {"not invoiced": -12_000}  # Stripe's draft may still come
    assert compared([], days_later=1.1) == {"unexplained": -12_000}
    # A period from the 15th to the 15th has its invoice only then.
    assert compared([], days_later=10, anchor_day=15) == {"not invoiced": -12_000}
    assert compared([], days_later=16, anchor_day=15) == {"unexplained": -12_000}
    assert compared([line(12, days=(14, 45))], days_later=16, anchor_day=15) == {}
    # No period holds it at all: the subscription begins later.
    assert compared([], days_later=0.1, anchor_day=32) == {"unexplained": -12_000}
    assert compared([line(12, meter="of_others")], days_later=40) == {"foreign": 12_000, "unexplained": -12_000}


def test_a_void_invoice_bills_nothing_and_its_successor_does() -> None:
    assert compared([line(12, status="void")], days_later=40) == {"void": -12_000}
    assert compared([line(12, status="void"), line(12)], days_later=40) == {}
    assert compared([line(12, status="uncollectible")], days_later=40) == {}


def test_two_lines_of_one_time_bill_it_twice() -> None:
    """As when a subscription has two items with our meter."""
    assert compared([line(12), line(12)], days_later=40) == {"foreign": 12_000}
    assert compared([line(12), line(0)], days_later=40).keys() == {"unexplained"}  # the second has not counted it
    # A price that changed in the middle makes two lines, one after the other.
    halves = [line(0, days=(0, 10)), line(12, days=(10, 31))]
    assert compared(halves, days_later=40) == {}


def test_another_currency_has_another_price() -> None:
    assert compared([line(12, currency="eur")._replace(amount=11)], days_later=40) == {}
