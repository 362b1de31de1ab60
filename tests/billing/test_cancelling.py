"""A delivered event is taken back within a day and its window sent anew; due credit is settled by a credit note."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import structlog
from pydantic import SecretStr

from gateway.billing import cancelling, filing
from gateway.billing.filing import month_of
from gateway.billing.outbox import Outbox
from gateway.billing.reporter import UsageReporter
from gateway.billing.stripe import Billing
from gateway.config.settings import Settings
from gateway.kit.errors import OptionError
from gateway.ledger.store import Ledger
from gateway.sandbox import credentials
from gateway.sandbox.server import Sandbox
from gateway.stores.postgres import Pool
from tests.billing.outboxes import HOUR, TEN, customer, oldest_first
from tests.conftest import METER
from tests.support.stand_ins import Clock, sandbox_at
from tests.support.usage import entries, usage

NOW = TEN + 2 * HOUR
SECOND = timedelta(seconds=1)
FIRST = f"{METER}:cus_1:{int(TEN.timestamp())}:0"
BALANCE = """
select (select sum(frozen_nano) from billing_windows)
  - (select coalesce(sum(value), 0) * 1000 from stripe_meter_events where state not in ('superseded', 'cancelled'))
  - (select sum(nano - credit_due_nano) from billing_carry)
"""
"""What is frozen and in no event, carry or credit due; 0."""


@pytest.fixture
async def clock() -> Clock:
    return Clock(NOW.timestamp())


@pytest.fixture
async def sandbox(clock: Clock) -> AsyncIterator[Sandbox]:
    async with sandbox_at(clock) as running:
        running.stripe.customers.add(0, {}, customer_id="cus_1")
        yield running


@pytest.fixture
async def bill(sandbox: Sandbox, pool: Pool) -> AsyncIterator[UsageReporter]:
    billing = Billing(credentials.STRIPE_SECRET_KEY, base_url=sandbox.stripe_base_url)
    await billing.ensure_meter(METER)
    log = structlog.get_logger()
    yield UsageReporter(Outbox(pool), billing, grace_s=300, monotonic=lambda: 0.0, random=lambda: 0.5, log=log)
    await billing.close()


@pytest.fixture
def settings(database_url: str, sandbox: Sandbox) -> Settings:
    return Settings(
        database_url=SecretStr(database_url),
        stripe_secret_key=SecretStr(credentials.STRIPE_SECRET_KEY),
        stripe_base_url=sandbox.stripe_base_url,
        gateway_operator="Ada",
    )


async def delivered(ledger: Ledger, pool: Pool, bill: UsageReporter) -> None:
    """5.000 micro-USD too much are at Stripe, and their correction is in the same window."""
    wrong = usage(await customer(ledger), TEN, 12_000_000)
    await ledger.insert_batch(entries(wrong))
    await bill.step_once(NOW)
    await ledger.insert_batch(entries(usage(wrong.user_id, TEN, -5_000_000, evidence="adjustment", adjusts=wrong.id)))
    at = await pool.fetchval("select max(delivered_at) from stripe_meter_events")
    assert at == NOW


async def test_a_cancelled_event_is_sent_anew_as_one_whole_amount(
    ledger: Ledger, pool: Pool, bill: UsageReporter, sandbox: Sandbox, settings: Settings
) -> None:
    await delivered(ledger, pool, bill)
    await cancelling.cancel_event(settings, FIRST, "a typo", now=NOW + HOUR, is_sure=False)
    assert [held.state for held in await oldest_first(Outbox(pool))] == ["sent"]
    await cancelling.cancel_event(settings, FIRST, "a typo", now=NOW + HOUR, is_sure=True, by="Bob")
    await bill.step_once(NOW + HOUR)
    events = [(held.value, held.state, held.timestamp) for held in await oldest_first(Outbox(pool))]
    last = TEN + HOUR - timedelta(seconds=1)
    assert events == [(12_000, "cancelled", last), (7_000, "sent", last)]
    assert [event.value for event in sandbox.stripe.events if not event.cancelled] == ["7000"]
    assert await pool.fetchval(BALANCE) == 0
    row = await pool.fetchrow("select who, action, why from stripe_decisions")
    assert tuple(row or ()) == ("Bob", "cancel", "a typo")
    assert {event["actor"] for event in await pool.fetch("select actor from admin_events")} == {"Bob"}


async def test_an_amount_is_given_back_once(
    ledger: Ledger, pool: Pool, bill: UsageReporter, settings: Settings
) -> None:
    """Whoever finds that somebody else has cancelled the event meanwhile leaves its window alone."""
    await delivered(ledger, pool, bill)
    event = await cancelling.cancel_event(settings, FIRST, "a typo", now=NOW, is_sure=False)
    async with pool.acquire() as connection:
        await cancelling.take_back(connection, event, "Ada", "a typo")
        with pytest.raises(OptionError, match="cancelled it meanwhile"):
            await cancelling.take_back(connection, event, "Bob", "a typo")
    assert await pool.fetchval(BALANCE) == 0


async def test_what_cannot_be_cancelled(ledger: Ledger, pool: Pool, bill: UsageReporter, settings: Settings) -> None:
    await delivered(ledger, pool, bill)
    with pytest.raises(OptionError, match="no event 'x' was delivered"):
        await cancelling.cancel_event(settings, "x", "a typo", now=NOW, is_sure=True)
    with pytest.raises(OptionError, match="24 hours"):
        await cancelling.cancel_event(settings, FIRST, "a typo", now=NOW + 24 * HOUR, is_sure=True)
    await pool.execute(
        "insert into stripe_invoices (id, customer, status, currency, period_start, period_end, subtotal, total,"
        " created_at, finalized_at, lines, is_live, asked_at) values ('in_1', 'cus_1', 'paid', 'usd', $1, $2, 1, 1, $2,"
        " $2, '[]', false, now())",
        TEN - HOUR, TEN + HOUR,
    )  # fmt: skip
    with pytest.raises(OptionError, match="final invoice in_1"):
        await cancelling.cancel_event(settings, FIRST, "a typo", now=NOW, is_sure=True)


async def test_nothing_is_cancelled_whose_invoice_may_be_final(
    ledger: Ledger, pool: Pool, bill: UsageReporter, clock: Clock, settings: Settings
) -> None:
    """Stripe takes it back and the invoice keeps it, so the customer would pay twice; a webhook may tell too late."""
    end = month_of(TEN).end
    await ledger.insert_batch(entries(usage(await customer(ledger), end - HOUR / 2, 12_000_000)))
    clock.now = (end + HOUR / 6).timestamp()
    await bill.step_once(end + HOUR / 6)
    (event,) = await oldest_first(Outbox(pool))
    assert event.state == "sent"
    at = end + HOUR - filing.MARGIN
    await cancelling.cancel_event(settings, event.identifier, "a typo", now=at - SECOND, is_sure=False)
    with pytest.raises(OptionError, match="the invoice of its period may be final"):
        await cancelling.cancel_event(settings, event.identifier, "a typo", now=at, is_sure=True)


async def test_credit_that_is_due_is_settled_by_a_credit_note(ledger: Ledger, pool: Pool, settings: Settings) -> None:
    wrong = usage(await customer(ledger), TEN - 30 * 24 * HOUR, 100_000)
    await ledger.insert_batch(entries(wrong))
    outbox = Outbox(pool)
    await outbox.freeze_closed(TEN - 29 * 24 * HOUR, 300)
    adjusted = usage(wrong.user_id, TEN, -100_700, evidence="adjustment", adjusts=wrong.id)
    await ledger.insert_batch(entries(adjusted))
    await outbox.freeze_closed(NOW, 300)
    assert await pool.fetchval(BALANCE) == 0
    for is_sure in (False, True):
        (settled,) = await cancelling.settle_credit(settings, "cus_1", "cn_1", "paid back", now=NOW, is_sure=is_sure)
        assert settled.micro_usd == 101
    row = await pool.fetchrow("select value, state, settled_ref from stripe_meter_events order by id desc limit 1")
    assert tuple(row or ()) == (-101, "settled", "cn_1")
    assert await pool.fetchval("select credit_due_nano from billing_carry") == 0
    assert await pool.fetchval(BALANCE) == 0
    with pytest.raises(OptionError, match="no credit is due"):
        await cancelling.settle_credit(settings, "cus_1", "cn_1", "again", now=NOW, is_sure=True)
