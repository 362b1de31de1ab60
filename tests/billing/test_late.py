"""Amounts that come too late for their period: filed at the present or held, with their window kept, and never lost."""

from datetime import UTC, datetime, timedelta

import pytest
import structlog

from gateway.billing.filing import FilingRules
from gateway.billing.outbox import Outbox
from gateway.billing.reporter import UsageReporter
from gateway.billing.stripe import Billing
from gateway.ledger.store import Ledger
from gateway.stores.postgres import Pool
from tests.billing.outboxes import GRACE_S, HOUR, book, claim_one, customer, oldest_first, retry
from tests.billing.stripe_truth import METER, StripeTruth
from tests.support.usage import entries, usage

EDGE = datetime(2026, 11, 1, tzinfo=UTC)
OCTOBER_31 = EDGE - 2 * HOUR
NOW = datetime(2026, 11, 29, 17, 2, 46, tzinfo=UTC)


@pytest.fixture
def outbox(pool: Pool) -> Outbox:
    return Outbox(pool)


def reporter(outbox: Outbox, stripe: Billing) -> UsageReporter:
    return UsageReporter(
        outbox, stripe, grace_s=300, monotonic=lambda: 0.0, random=lambda: 0.5, log=structlog.get_logger()
    )


async def subscribe(
    pool: Pool, who: str, start: datetime, end: datetime, *, started_at: datetime | None = None
) -> None:
    await pool.execute(
        "insert into stripe_subscriptions (item, id, customer, price, meter, currency, status, started_at, anchor,"
        " period_start, period_end, is_live, asked_at) values ('si_' || $1, 'sub_' || $1, $1, 'price_1', $2, 'usd',"
        " 'active', $3, $4, $4, $5, false, now())",
        who, METER, started_at or start, start, end,
    )  # fmt: skip


async def test_usage_of_a_finished_month_goes_to_the_present_one(ledger: Ledger, outbox: Outbox, pool: Pool) -> None:
    """A row completed on 31 October at 22:00 and written on 29 November: 60 USD that no invoice would have had."""
    await book(ledger, await customer(ledger), OCTOBER_31, 60_000_000_000)
    await outbox.freeze_closed(NOW, GRACE_S)
    (held,) = await oldest_first(outbox)
    assert (held.value, held.timestamp, held.state) == (60_000_000, NOW, "pending")
    row = await pool.fetchrow("select reason, original_window, window_start from stripe_meter_events")
    assert tuple(row or ()) == ("late", OCTOBER_31, OCTOBER_31)


async def test_late_amounts_wait_for_a_person_where_that_is_set(ledger: Ledger, pool: Pool) -> None:
    outbox = Outbox(pool, FilingRules(1, holds_late=True))
    await book(ledger, await customer(ledger), OCTOBER_31, 5_000)
    await outbox.freeze_closed(NOW, GRACE_S)
    (held,) = await oldest_first(outbox)
    assert held.state == "unreportable"
    assert "billing.late is hold" in (held.last_error or "")
    assert await outbox.claim(NOW, lease_s=60, events_max=5) == []


async def test_an_outage_over_the_edge_of_a_month(
    ledger: Ledger, outbox: Outbox, pool: Pool, stripe: Billing, truth: StripeTruth
) -> None:
    """Frozen in time, and Stripe away until October's invoice is final: what certainly did not arrive is filed anew."""
    await book(ledger, await customer(ledger), OCTOBER_31, 5_000)
    bill = reporter(outbox, stripe)
    truth.always = "429"
    for minutes in (5, 30, 44):
        await bill.step_once(EDGE + timedelta(minutes=minutes))
    truth.always = "ok"
    later = EDGE + timedelta(minutes=45)
    assert (await bill.step_once(later + timedelta(hours=1))).sent == 1
    old, new = await oldest_first(outbox)
    assert (old.state, old.timestamp) == ("superseded", EDGE - HOUR - timedelta(seconds=1))
    assert (new.state, new.timestamp, new.value) == ("sent", later + HOUR, 5)
    assert list(truth.events) == [new.identifier]
    row = await pool.fetchrow("select replaces, reason, original_window from stripe_meter_events where id = $1", new.id)
    assert tuple(row or ()) == (old.id, "late", OCTOBER_31)
    attempts = await pool.fetch("select outcome from stripe_attempts where event_id = $1 order by id", old.id)
    assert attempts[-1]["outcome"] == "refiled"


async def test_what_may_have_arrived_before_the_edge_is_not_sent_again(
    ledger: Ledger, outbox: Outbox, stripe: Billing, truth: StripeTruth
) -> None:
    await book(ledger, await customer(ledger), OCTOBER_31, 5_000)
    bill = reporter(outbox, stripe)
    truth.next.append("lost")
    await bill.step_once(EDGE + timedelta(minutes=5))
    assert (await bill.step_once(EDGE + HOUR)).unknown == 1
    (held,) = await oldest_first(outbox)
    assert held.state == "unknown"
    assert "invoice became final" in (held.last_error or "")
    assert len(truth.calls) == 1


async def test_an_event_that_is_being_sent_at_the_edge_is_left_alone(ledger: Ledger, outbox: Outbox) -> None:
    await book(ledger, await customer(ledger), OCTOBER_31, 5_000)
    await outbox.freeze_closed(EDGE, GRACE_S)
    at = EDGE + timedelta(minutes=44, seconds=59)
    claim = await claim_one(outbox, at)
    assert await outbox.refile_overdue(at + timedelta(seconds=30)) == (0, 0)
    await retry(outbox, claim, "429", at, after_s=1, in_doubt=False)
    assert await outbox.refile_overdue(at + timedelta(seconds=30)) == (1, 0)


async def test_an_event_of_the_version_before_is_filed_by_the_calendar_month(
    ledger: Ledger, outbox: Outbox, pool: Pool
) -> None:
    await book(ledger, await customer(ledger), OCTOBER_31, 5_000)
    await outbox.freeze_closed(EDGE - timedelta(minutes=50), GRACE_S)
    await pool.execute("update stripe_meter_events set file_before = null")
    assert await outbox.refile_overdue(EDGE + timedelta(minutes=44)) == (0, 0)
    assert await outbox.refile_overdue(EDGE + timedelta(minutes=45)) == (1, 0)


async def test_the_period_is_the_customers_own(ledger: Ledger, outbox: Outbox, pool: Pool) -> None:
    """From the 15th to the 15th: the end of October is in the middle of it."""
    await book(ledger, await customer(ledger), OCTOBER_31, 5_000)
    start = datetime(2026, 10, 15, tzinfo=UTC)
    await subscribe(pool, "cus_1", start, datetime(2026, 11, 15, tzinfo=UTC))
    await outbox.freeze_closed(datetime(2026, 11, 14, tzinfo=UTC), GRACE_S)
    (held,) = await oldest_first(outbox)
    assert held.timestamp == EDGE - HOUR - timedelta(seconds=1)
    row = await pool.fetchrow("select reason, file_before from stripe_meter_events")
    last = held.timestamp + timedelta(days=35) - timedelta(minutes=15)
    assert tuple(row or ()) == ("usage", min(last, datetime(2026, 11, 15, 0, 45, tzinfo=UTC)))


async def test_usage_from_before_a_subscription_is_not_sent(ledger: Ledger, outbox: Outbox, pool: Pool) -> None:
    await book(ledger, await customer(ledger), OCTOBER_31, 5_000)
    await subscribe(pool, "cus_1", EDGE, datetime(2026, 12, 1, tzinfo=UTC))
    await subscribe(pool, "cus_9", EDGE, datetime(2026, 12, 1, tzinfo=UTC))
    await book(ledger, await customer(ledger, 2), EDGE, 6_000)
    await outbox.freeze_closed(EDGE + 2 * HOUR, GRACE_S)
    found = {
        held.customer: (held.state, (held.last_error or "").partition(":")[0]) for held in await oldest_first(outbox)
    }
    assert found == {"cus_1": ("unreportable", "before subscription"), "cus_2": ("unreportable", "no subscription")}


async def test_a_window_in_which_a_subscription_begins_is_divided(ledger: Ledger, outbox: Outbox, pool: Pool) -> None:
    """A customer subscribes at 12:20 and calls at 12:30: the first hour is billed, but for what was before."""
    user = await customer(ledger)
    at = datetime(2026, 11, 10, 12, tzinfo=UTC)
    begins = at + timedelta(minutes=20)
    await subscribe(pool, "cus_1", begins, datetime(2026, 12, 10, 12, 20, tzinfo=UTC))
    before, after = at + timedelta(minutes=10), at + timedelta(minutes=30)
    await ledger.insert_batch(entries(usage(user, before, 3_000), usage(user, after, 5_000)))
    await outbox.freeze_closed(at + timedelta(hours=1, minutes=5), GRACE_S)
    found = [(held.state, held.value, held.timestamp) for held in await oldest_first(outbox)]
    assert found == [
        ("unreportable", 3, begins - timedelta(seconds=1)),
        ("pending", 5, at + HOUR - timedelta(seconds=1)),
    ]


async def test_a_correction_never_makes_a_period_negative(ledger: Ledger, outbox: Outbox, pool: Pool) -> None:
    """Stripe invoices a negative period as 0: the rest stays due, and is taken off later usage."""
    user = await customer(ledger)
    first = usage(user, OCTOBER_31, 100_000)
    await ledger.insert_batch(entries(first))
    await outbox.freeze_closed(EDGE, GRACE_S)
    november = EDGE + 30 * HOUR
    adjusted = usage(user, november, -100_000, evidence="adjustment", adjusts=first.id)
    await ledger.insert_batch(entries(usage(user, november - HOUR, 30_000), adjusted))
    await outbox.freeze_closed(november + 2 * HOUR, GRACE_S)
    assert [held.value for held in await oldest_first(outbox)] == [100, 30, -30]
    assert await pool.fetchval("select credit_due_nano from billing_carry") == 70_000
    await book(ledger, user, november + 5 * HOUR, 90_000)
    await outbox.freeze_closed(november + 7 * HOUR, GRACE_S)
    assert [held.value for held in await oldest_first(outbox)] == [100, 30, -30, 20]
    assert await pool.fetchval("select credit_due_nano from billing_carry") == 0


async def test_a_correction_in_doubt_may_have_taken_back_already(ledger: Ledger, outbox: Outbox, pool: Pool) -> None:
    """Stripe may have it, so another one takes back only what would be left then."""
    user, november = await customer(ledger), EDGE + 30 * HOUR
    first = usage(user, november - HOUR, 100_000)
    for hours in (0, 5):
        adjusted = usage(user, november + hours * HOUR, -60_000, evidence="adjustment", adjusts=first.id)
        await ledger.insert_batch(entries(first, adjusted))
        await outbox.freeze_closed(november + (hours + 2) * HOUR, GRACE_S)
        await pool.execute("update stripe_meter_events set state = 'unknown', next_attempt_at = null where value < 0")
    assert [held.value for held in await oldest_first(outbox)] == [100, -60, -40]
    assert await pool.fetchval("select credit_due_nano from billing_carry") == 20_000
