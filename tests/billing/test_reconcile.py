"""`gateway reconcile stripe`: a month of the stand-in from the ledger to the invoice, and why two of them differ."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest

from gateway.accounts.store import Accounts
from gateway.billing.explain.chain import OutboxEvent
from gateway.billing.reconcile.compare import PayerMonth, compare_month
from gateway.ledger.store import Ledger
from gateway.stores.postgres import Pool
from tests.billing.billed_month import FIRST, Month, open_month
from tests.conftest import METER
from tests.support.invoke import gateway
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
    assert (status, causes(result, month.customer)) == (0, {"held": "-0.005000000"})


async def test_more_at_stripe_than_was_delivered_fails(month: Month, database_url: str) -> None:
    ann = await month.add_user("ann")
    await month.book(ann, 1, 3_000_000)
    await month.report(START + DAY)
    await month.shop.use(month.customer, 500, START + DAY, "of somebody else")
    status, result = await reconcile(month, database_url)
    assert (status, causes(result, month.customer)) == (1, {"foreign": "0.000500000"})


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
    short = PayerMonth("cus_1", "", 5000, 4000, 0, 0, 0, 4000, 0, [event(4)], [event(4)], ())
    (found,) = compare_month(short, FIRST, UNTIL, {METER: Decimal(4)}, UNTIL).differences
    assert (found.cause, found.nano) == ("unexplained", -1000)
    lost = PayerMonth("cus_1", "", 9000, 9000, 0, 0, 0, 9000, 0, [event(4)], [event(4)], ())
    (found,) = compare_month(lost, FIRST, UNTIL, {METER: Decimal(4)}, UNTIL).differences
    assert (found.cause, found.nano) == ("unexplained", -5000)
    unknown = PayerMonth("cus_1", "", 4000, 4000, 0, 0, 0, 4000, 0, [event(4)], [event(4)], ())
    (found,) = compare_month(unknown, FIRST, UNTIL, "no such customer", UNTIL).differences
    assert (found.cause, found.nano) == ("unknown customer", -4000)
