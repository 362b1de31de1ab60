"""Billing end to end, ledger to Stripe: whatever fails on the way, Stripe counts every micro-dollar once."""

import asyncio
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog

from gateway.accounts.store import Accounts
from gateway.billing.outbox import Outbox
from gateway.billing.reporter import STOPPED_S, BillCounts, UsageReporter
from gateway.billing.stripe import Billing
from gateway.billing.windows import MeterEvent, StripeAnswer
from gateway.kit.errors import DependencyDown
from gateway.ledger.store import Ledger
from gateway.stores.postgres import Pool
from tests.billing.outboxes import accrued_nano, events_in
from tests.billing.stripe_truth import StripeTruth
from tests.support.killed import wait_for_rollback
from tests.support.patience import ENDS_S
from tests.support.usage import entries, usage

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)
NOW = TEN + 6 * HOUR
ROOT = Path(__file__).parents[2]


def reporter(pool: Pool, stripe: Billing | None) -> UsageReporter:
    return UsageReporter(
        Outbox(pool), stripe, grace_s=300, monotonic=lambda: 0.0, random=lambda: 0.5, log=structlog.get_logger()
    )


@pytest.fixture
def bill(pool: Pool, stripe: Billing) -> UsageReporter:
    return reporter(pool, stripe)


async def owe(ledger: Ledger, *, customers: int = 1, windows: int = 1, nano: int = 5_400) -> int:
    """Books usage; returns the whole micro-USD that customers × windows owe."""
    for number in range(customers):
        user = await Accounts(ledger.pool).create_user(f"user{number}@example.com", stripe_customer_id=f"cus_{number}")
        await ledger.insert_batch(entries(*(usage(user, TEN + hour * HOUR, nano) for hour in range(windows))))
    return customers * (windows * nano // 1000)


async def states(pool: Pool) -> dict[str, int]:
    return (await Outbox(pool).status()).counts


async def test_usage_reaches_stripe(ledger: Ledger, bill: UsageReporter, truth: StripeTruth, pool: Pool) -> None:
    owed = await owe(ledger, customers=2, windows=3)
    assert await bill.step_once(NOW) == BillCounts(windows_frozen=6, frozen=6, sent=6)
    assert truth.total() == owed == 32  # 3 × 5.4 = 16.2 each: the carry is used
    assert truth.keys == truth.calls  # the idempotency key is the identifier
    assert await bill.step_once(NOW + HOUR) == BillCounts()
    assert await states(pool) == {"sent": 6}


async def test_a_window_may_be_closed_early_by_an_argument(
    ledger: Ledger, bill: UsageReporter, truth: StripeTruth
) -> None:
    await owe(ledger)
    assert await bill.step_once(TEN + timedelta(minutes=1)) == BillCounts()
    assert (await bill.step_once(TEN + timedelta(minutes=1), grace_s=-3600)).sent == 1
    assert truth.total() == 5


async def test_without_a_key_nothing_is_frozen(ledger: Ledger, pool: Pool) -> None:
    await owe(ledger)
    assert await reporter(pool, None).step_once(NOW) == BillCounts()
    assert await accrued_nano(pool) == 5_400


async def test_reporters_at_once_count_everything_once(
    ledger: Ledger, pool: Pool, stripe: Billing, truth: StripeTruth
) -> None:
    owed = await owe(ledger, customers=12, windows=4)
    truth.delay_s = 0.002
    passes = await asyncio.gather(*(reporter(pool, stripe).step_once(NOW) for _ in range(4)))
    passes += [await reporter(pool, stripe).step_once(NOW)]
    assert truth.total() == owed
    assert len(truth.calls) == len(truth.events) == sum(done.sent for done in passes) == 48
    assert truth.crowded == 0  # Stripe takes one call per customer and meter at a time


@pytest.mark.parametrize("fault", ["429", "500"])
async def test_a_failure_is_tried_again_as_the_same_event(
    ledger: Ledger, bill: UsageReporter, truth: StripeTruth, pool: Pool, fault: str
) -> None:
    owed = await owe(ledger)
    truth.next.extend([fault, fault])
    assert (await bill.step_once(NOW)).retry == 1
    assert await bill.step_once(NOW + timedelta(seconds=1)) == BillCounts()  # not before its time
    assert (await bill.step_once(NOW + timedelta(seconds=2))).retry == 1
    assert await bill.step_once(NOW + timedelta(seconds=5)) == BillCounts()  # waits longer now
    assert (await bill.step_once(NOW + timedelta(seconds=6))).sent == 1
    assert len(truth.calls) == 3
    assert len(set(truth.calls)) == 1
    assert truth.total() == owed
    assert await states(pool) == {"sent": 1}


async def test_accepted_but_the_answer_lost_counts_once(
    ledger: Ledger, bill: UsageReporter, truth: StripeTruth, pool: Pool
) -> None:
    owed = await owe(ledger)
    truth.next.extend(["lost"])
    assert (await bill.step_once(NOW)).retry == 1
    assert (await bill.step_once(NOW + timedelta(minutes=1))).duplicate == 1
    assert truth.total() == owed
    assert await states(pool) == {"duplicate": 1}


class Killed:
    """Runs passes of reporters that die."""

    def __init__(self, process: asyncio.subprocess.Process, pool: Pool) -> None:
        self._process = process
        self._pool = pool

    async def run(self, now: datetime, call: str) -> int:
        """One pass that dies after a call; the exit status of its process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{now.isoformat()} {call}\n".encode())
        status = int(await asyncio.wait_for(self._process.stdout.readline(), ENDS_S))
        await wait_for_rollback(self._pool)
        return status


@pytest.fixture
async def killed(database_url: str, truth: StripeTruth, pool: Pool) -> AsyncIterator[Killed]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.billing.bill_killed", database_url, truth.url,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    yield Killed(process, pool)
    if process.returncode is None:
        process.kill()
    await process.communicate()


@pytest.mark.long
async def test_a_reporter_killed_after_any_of_its_calls_counts_once(
    ledger: Ledger, bill: UsageReporter, truth: StripeTruth, pool: Pool, killed: Killed
) -> None:
    """Each pass dies one call later than the one before, until one has no more calls to die after."""
    user = await Accounts(ledger.pool).create_user("user@example.com", stripe_customer_id="cus_1")
    now, owed, calls = NOW, 0, 0
    while True:
        calls += 1
        await ledger.insert_batch(entries(usage(user, now - 2 * HOUR, 5_000)))
        owed += 5
        status = await killed.run(now, str(calls))
        now += HOUR
        if status == 0:
            break
        assert status == -9
        # Nothing is held back for longer than a lease, and nothing is twice at Stripe.
        await bill.step_once(now)
        assert truth.total() == owed, calls
    assert calls > 20
    counts = await states(pool)
    assert sum(counts.values()) * 5 == owed
    assert set(counts) == {"sent", "duplicate"}


async def test_a_reporter_killed_after_sending_counts_once(
    ledger: Ledger, bill: UsageReporter, truth: StripeTruth, pool: Pool, killed: Killed
) -> None:
    owed = await owe(ledger)
    assert await killed.run(NOW, "send") == -9
    assert truth.total() == owed  # Stripe has it; nobody here knows
    assert await states(pool) == {"pending": 1}
    assert await bill.step_once(NOW + timedelta(seconds=60)) == BillCounts()  # still leased to the dead one
    assert (await bill.step_once(NOW + timedelta(seconds=180))).duplicate == 1
    assert truth.total() == owed
    assert len(set(truth.calls)) == 1 < len(truth.calls)


async def test_what_stripe_never_takes_is_set_aside(
    ledger: Ledger, bill: UsageReporter, truth: StripeTruth, pool: Pool
) -> None:
    await owe(ledger, windows=2)
    truth.next.extend(["refuse"])
    assert (await bill.step_once(NOW)).rejected == 1
    (held,) = await events_in(Outbox(pool), "rejected")
    assert "Invalid value" in (held.last_error or "")
    assert (await bill.step_once(NOW + timedelta(seconds=30))).sent == 1  # the next one is not held up
    await bill.step_once(NOW + 100 * HOUR)
    assert len(truth.calls) == 2


async def test_refused_credentials_stop_the_pass(
    ledger: Ledger, bill: UsageReporter, truth: StripeTruth, pool: Pool
) -> None:
    owed = await owe(ledger, customers=40)
    truth.always = "401"
    counts = await bill.step_once(NOW)
    assert counts.stopped is not None
    assert "STRIPE_SECRET_KEY" in counts.stopped
    assert len(truth.calls) <= 8  # those already under way
    assert await states(pool) == {"pending": 40}  # nothing is lost, nothing is in doubt
    truth.always = "ok"
    assert (await bill.step_once(NOW + 48 * HOUR)).sent == 40
    assert truth.total() == owed


async def test_an_outage_is_not_asked_of_every_event(ledger: Ledger, bill: UsageReporter, truth: StripeTruth) -> None:
    await owe(ledger, customers=40)
    truth.always = "500"
    assert (await bill.step_once(NOW)).retry == 32
    assert len(truth.calls) == 32


async def test_doubt_of_more_than_twenty_hours_is_reported_and_not_sent(
    ledger: Ledger, bill: UsageReporter, truth: StripeTruth, pool: Pool
) -> None:
    await owe(ledger)
    truth.next.extend(["lost"])
    await bill.step_once(NOW)
    assert await bill.step_once(NOW + 20 * HOUR) == BillCounts(unknown=1)
    assert len(truth.calls) == 1
    assert await states(pool) == {"unknown": 1}


async def test_usage_of_more_than_35_days_ago_is_filed_at_the_present_and_says_so(
    ledger: Ledger, bill: UsageReporter, truth: StripeTruth, pool: Pool
) -> None:
    owed = await owe(ledger)
    now = TEN + timedelta(days=36)
    assert (await bill.step_once(now)).sent == 1
    assert truth.total() == owed
    row = await pool.fetchrow("select event_timestamp, original_window, reason from stripe_meter_events")
    assert tuple(row or ()) == (now, TEN, "late")


class SlowStripe:
    """Stripe, whose every answer to an event takes a while, by a clock of the test's own."""

    def __init__(self, stripe: Billing, takes_s: float) -> None:
        self._stripe = stripe
        self._takes_s = takes_s
        self.now_s = 0.0

    async def account(self) -> str:
        return await self._stripe.account()

    async def refusal(self, event_name: str) -> str | None:
        return await self._stripe.refusal(event_name)

    async def deliver(self, event: MeterEvent) -> StripeAnswer:
        answer = await self._stripe.deliver(event)
        self.now_s += self._takes_s
        return answer


async def test_nothing_is_sent_when_its_lease_may_have_ended(
    ledger: Ledger, pool: Pool, stripe: Billing, truth: StripeTruth
) -> None:
    """Another worker may send it by then, or have given it up; what was not sent is due again at once."""
    owed = await owe(ledger, customers=10)
    slow = SlowStripe(stripe, takes_s=20.0)
    late = UsageReporter(
        Outbox(pool), slow, grace_s=300, monotonic=lambda: slow.now_s, random=lambda: 0.5, log=structlog.get_logger()
    )
    late._at_once = 1
    counts = await late.step_once(NOW)
    assert counts.sent == 10
    outcomes = await pool.fetch("select outcome, count(*) from stripe_attempts group by 1")
    assert {row["outcome"]: row["count"] for row in outcomes} == {"delivered": 10, "not_sent": 6 + 2}
    delivered = await pool.fetch("select delivered_at from stripe_meter_events order by delivered_at")
    assert [row[0] for row in delivered] == [NOW + timedelta(seconds=20 * number) for number in range(1, 11)]
    assert truth.total() == owed


class MovedOutbox(Outbox):
    """The outbox of a database whose clock says NOW."""

    async def now(self) -> datetime:
        return NOW


async def test_the_loop_goes_by_the_clock_of_postgresql(
    ledger: Ledger, pool: Pool, stripe: Billing, truth: StripeTruth
) -> None:
    owed = await owe(ledger)
    moved = UsageReporter(
        MovedOutbox(pool), stripe, grace_s=300, monotonic=lambda: 0.0, random=lambda: 0.5, log=structlog.get_logger()
    )
    assert await moved.turn_now_s(interval_s=30) == 30
    assert truth.total() == owed
    assert await pool.fetchval("select delivered_at from stripe_meter_events") == NOW
    before, at, after = [
        await pool.fetchval("select clock_timestamp()"),
        await Outbox(pool).now(),
        await pool.fetchval("select clock_timestamp()"),
    ]
    assert before <= at <= after


async def waits_of(bill: UsageReporter, count: int) -> list[float]:
    """Seconds between passes, for `count` of them, two minutes apart."""
    return [await bill.turn_s(NOW + number * timedelta(minutes=2), interval_s=30) for number in range(count)]


async def test_the_loop_waits_longer_while_stripe_is_away(
    ledger: Ledger, bill: UsageReporter, truth: StripeTruth
) -> None:
    await owe(ledger)
    truth.next.extend(["500", "500"])
    assert await waits_of(bill, 3) == [60.0, 120.0, 30.0]
    assert truth.total() == 5


async def test_a_database_that_is_away_is_an_outage(bill: UsageReporter, pool: Pool) -> None:
    await pool.close()
    with pytest.raises(DependencyDown):
        await bill.turn_s(NOW, interval_s=30)


async def test_the_loop_asks_seldom_while_credentials_are_refused(
    ledger: Ledger, bill: UsageReporter, truth: StripeTruth
) -> None:
    await owe(ledger)
    truth.next.extend(["401"])
    assert await waits_of(bill, 2) == [STOPPED_S, 30.0]
    assert truth.total() == 5
