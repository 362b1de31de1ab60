"""What was used is on an invoice, at a Stripe that finalises them: late usage on the next one, no period below zero."""

from datetime import UTC, datetime, timedelta

import pytest
import structlog

from gateway.accounts.store import Accounts
from gateway.billing.outbox import Outbox
from gateway.billing.reporter import UsageReporter
from gateway.billing.stripe import Billing
from gateway.billing.windows import unix_seconds
from gateway.ledger.store import Ledger
from gateway.stores.postgres import Pool
from tests.support.stand_ins import control
from tests.support.stripe_shop import START, Shop
from tests.support.usage import entries, usage

DECEMBER = datetime.fromtimestamp(START, UTC)
JANUARY = datetime(2027, 1, 1, tzinfo=UTC)
FEBRUARY = datetime(2027, 2, 1, tzinfo=UTC)
MARCH = datetime(2027, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
USD = 10**9
"""Nano-USD."""


@pytest.fixture
def bill(billing: Billing, pool: Pool) -> UsageReporter:
    log = structlog.get_logger()
    return UsageReporter(Outbox(pool), billing, grace_s=300, monotonic=lambda: 0.0, random=lambda: 0.5, log=log)


@pytest.fixture
async def payer(shop: Shop, ledger: Ledger) -> tuple[str, str]:
    """A user, and their customer with a subscription since the beginning of December."""
    customer = (await shop.subscribe()).customer
    return await Accounts(ledger.pool).create_user("eve@example.com", stripe_customer_id=customer), customer


async def move(shop: Shop, bill: UsageReporter, to: datetime) -> None:
    """Stripe's clock and ours."""
    await shop.move_to(unix_seconds(to))
    await bill.step_once(to)


async def invoiced(shop: Shop, customer: str) -> list[int]:
    """Micro-USD on each final invoice, oldest first."""
    found = [one for one in await shop.invoices(customer=customer) if one.status != "draft"]
    return [sum(line.quantity or 0 for line in one.lines.data) for one in reversed(found)]


async def test_usage_that_comes_after_its_invoice_is_on_the_next_one(
    shop: Shop, bill: UsageReporter, ledger: Ledger, payer: tuple[str, str]
) -> None:
    """60 USD of 31 December that are written on 29 January: before, they were `sent` and on no invoice."""
    user, customer = payer
    await ledger.insert_batch(entries(usage(user, DECEMBER + 30 * HOUR, 6 * USD)))
    await move(shop, bill, DECEMBER + 40 * HOUR)
    await move(shop, bill, JANUARY + 2 * HOUR)
    await ledger.insert_batch(entries(usage(user, JANUARY - 2 * HOUR, 60 * USD)))
    await move(shop, bill, datetime(2027, 1, 29, 17, 2, 46, tzinfo=UTC))
    await move(shop, bill, FEBRUARY + 2 * HOUR)
    assert await invoiced(shop, customer) == [6_000_000, 60_000_000]


async def test_usage_within_the_grace_is_on_its_own_invoice(
    shop: Shop, bill: UsageReporter, ledger: Ledger, payer: tuple[str, str]
) -> None:
    user, customer = payer
    await ledger.insert_batch(entries(usage(user, JANUARY - timedelta(minutes=2), 5 * USD)))
    await move(shop, bill, JANUARY + timedelta(minutes=44))
    await move(shop, bill, JANUARY + 2 * HOUR)
    assert await invoiced(shop, customer) == [5_000_000]


async def test_an_outage_over_the_edge_loses_nothing(
    shop: Shop, bill: UsageReporter, ledger: Ledger, pool: Pool, payer: tuple[str, str]
) -> None:
    user, customer = payer
    hours = 30
    await ledger.insert_batch(
        entries(*(usage(user, JANUARY - 10 * HOUR + hour * HOUR, USD + hour) for hour in range(hours)))
    )
    for hour in range(-9, 20, 4):  # everything is refused without being counted
        await control(shop.sandbox, "stripe", "", status=429, reason="global-rate", times=1)
        await move(shop, bill, JANUARY + hour * HOUR)
    await control(shop.sandbox, "stripe", "", status=200, times=0)
    for minutes in range(0, 60 * 24, 30):
        await move(shop, bill, JANUARY + 21 * HOUR + timedelta(minutes=minutes))
    await move(shop, bill, FEBRUARY + 2 * HOUR)
    assert sum(await invoiced(shop, customer)) * 1000 + await pool.fetchval(
        "select nano from billing_carry"
    ) == hours * USD + sum(range(hours))
    states = (await Outbox(pool).status()).counts
    assert set(states) <= {"sent", "superseded"}


async def test_no_period_is_below_zero(shop: Shop, bill: UsageReporter, ledger: Ledger, payer: tuple[str, str]) -> None:
    """100 USD too much in December, found in January with 30 USD of usage: 70 USD are taken off February."""
    user, customer = payer
    wrong = usage(user, DECEMBER + 30 * HOUR, 100 * USD)
    await ledger.insert_batch(entries(wrong))
    await move(shop, bill, DECEMBER + 40 * HOUR)
    await move(shop, bill, JANUARY + 2 * HOUR)
    await ledger.insert_batch(entries(usage(user, JANUARY + 30 * HOUR, 30 * USD)))
    await move(shop, bill, JANUARY + 40 * HOUR)
    corrected = usage(user, JANUARY + 50 * HOUR, -100 * USD, evidence="adjustment", adjusts=wrong.id)
    await ledger.insert_batch(entries(corrected))
    await move(shop, bill, JANUARY + 60 * HOUR)
    await move(shop, bill, FEBRUARY + 2 * HOUR)
    await ledger.insert_batch(entries(usage(user, FEBRUARY + 30 * HOUR, 90 * USD)))
    await move(shop, bill, FEBRUARY + 40 * HOUR)
    await move(shop, bill, MARCH + 2 * HOUR)
    assert await invoiced(shop, customer) == [100_000_000, 0, 20_000_000]


async def test_a_meter_that_stripe_misses_only_later_loses_nothing(
    shop: Shop, bill: UsageReporter, ledger: Ledger, payer: tuple[str, str]
) -> None:
    """It would take events with a 200 and report `no_meter` afterwards, so the meter is looked at before each pass."""
    user, customer = payer
    await control(shop.sandbox, "stripe", "/ways", no_meter_late=True)
    await shop.client.v1.billing.meters.deactivate_async(shop.price.recurring.meter)
    await ledger.insert_batch(entries(usage(user, DECEMBER + 30 * HOUR, 6 * USD)))
    await shop.move_to(unix_seconds(DECEMBER + 40 * HOUR))
    stopped = await bill.step_once(DECEMBER + 40 * HOUR)
    assert "no active meter" in (stopped.stopped or "")
    await shop.client.v1.billing.meters.reactivate_async(shop.price.recurring.meter)
    assert (await bill.step_once(DECEMBER + 40 * HOUR)).sent == 1
    await move(shop, bill, JANUARY + 2 * HOUR)
    assert await invoiced(shop, customer) == [6_000_000]
