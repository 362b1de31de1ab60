"""What hits everybody stops the reporter: nothing is rejected, there is one alarm, and it goes on by itself."""

from datetime import timedelta

import pytest
from structlog.testing import CapturingLogger

from gateway.billing.outbox import Outbox
from gateway.billing.reporter import CONCURRENT_MAX, STOPPED_S, UsageReporter
from gateway.billing.stripe import Billing
from gateway.ledger.store import Ledger
from gateway.stores.postgres import Pool
from tests.billing.outboxes import HOUR, TEN, book, customer
from tests.billing.stripe_truth import StripeTruth

NOW = TEN + 6 * HOUR
SOON = timedelta(seconds=STOPPED_S)


@pytest.fixture
def log() -> CapturingLogger:
    return CapturingLogger()


@pytest.fixture
def bill(pool: Pool, stripe: Billing, log: CapturingLogger) -> UsageReporter:
    return UsageReporter(Outbox(pool), stripe, grace_s=300, monotonic=lambda: 0.0, random=lambda: 0.5, log=log)


async def owe(ledger: Ledger, *, customers: int, windows: int = 1) -> None:
    for number in range(customers):
        user = await customer(ledger, number)
        for hour in range(windows):
            await book(ledger, user, TEN + hour * HOUR, 5_000)


def alarms(log: CapturingLogger) -> list[str]:
    return [str(call.args[0]) for call in log.calls if call.method_name == "error"]


@pytest.mark.parametrize("how", ["archived before", "archived meanwhile", "wrong formula"])
async def test_a_meter_that_counts_nothing_rejects_nothing(
    ledger: Ledger, pool: Pool, bill: UsageReporter, truth: StripeTruth, log: CapturingLogger, how: str
) -> None:
    """Twelve customers-hours and an archived meter; once it is reactivated all of them go out by themselves."""
    await owe(ledger, customers=4, windows=3)
    truth.has_meter = how != "archived before"
    truth.formula = "count" if how == "wrong formula" else "sum"
    truth.always = "no meter"
    for turns in range(3):
        assert await bill.turn_s(NOW + turns * SOON, interval_s=30) == STOPPED_S
    assert (await Outbox(pool).status()).counts == {"pending": 12}
    assert alarms(log) == ["bill_stopped"]  # once
    assert bill.stopped is not None
    assert truth.total() == 0
    truth.always, truth.has_meter, truth.formula = "ok", True, "sum"
    for turns in range(3, 6):
        await bill.turn_s(NOW + turns * SOON, interval_s=30)
    assert (await Outbox(pool).status()).counts == {"sent": 12}
    assert truth.total() == 12 * 5
    assert bill.stopped is None


async def test_a_refusal_of_five_customers_is_nobodys_fault(
    ledger: Ledger, pool: Pool, bill: UsageReporter, truth: StripeTruth, log: CapturingLogger
) -> None:
    await owe(ledger, customers=40)
    truth.always = "refuse"
    assert await bill.turn_s(NOW, interval_s=30) == STOPPED_S
    assert (await Outbox(pool).status()).counts == {"pending": 40}
    assert len(truth.calls) <= 5 + CONCURRENT_MAX
    assert alarms(log) == ["bill_stopped"]
    truth.always = "ok"
    await bill.turn_s(NOW + SOON, interval_s=30)
    assert (await Outbox(pool).status()).counts == {"sent": 40}


async def test_a_refusal_of_four_customers_is_theirs(
    ledger: Ledger, pool: Pool, bill: UsageReporter, truth: StripeTruth
) -> None:
    await owe(ledger, customers=10)
    truth.next.extend(["refuse"] * 4)
    counts = await bill.step_once(NOW)
    assert (counts.rejected, counts.sent, counts.stopped) == (4, 6, None)
    assert (await Outbox(pool).status()).counts == {"rejected": 4, "sent": 6}


async def test_many_refusals_of_one_customer_are_its_own(
    ledger: Ledger, pool: Pool, bill: UsageReporter, truth: StripeTruth
) -> None:
    await owe(ledger, customers=1, windows=6)
    truth.always = "refuse"
    for turns in range(6):
        assert (await bill.step_once(NOW + turns * SOON)).rejected == 1
    assert (await Outbox(pool).status()).counts == {"rejected": 6}


async def test_too_many_calls_in_all_slow_the_reporter(
    ledger: Ledger, pool: Pool, bill: UsageReporter, truth: StripeTruth
) -> None:
    await owe(ledger, customers=40)
    truth.next.extend(["global-rate"] * 8)
    await bill.step_once(NOW)
    assert len(truth.calls) <= CONCURRENT_MAX  # those under way; no other was sent
    first, truth.calls[:], truth.delay_s = len(truth.calls), [], 0.01
    assert first >= 1
    truth.next.clear()
    truth.busiest = 0
    assert (await bill.step_once(NOW + HOUR)).sent == 40
    assert truth.busiest <= CONCURRENT_MAX // 2
    assert (await Outbox(pool).status()).counts == {"sent": 40}


async def test_a_call_that_meets_another_one_is_soon_tried_again(
    ledger: Ledger, bill: UsageReporter, truth: StripeTruth
) -> None:
    await owe(ledger, customers=1)
    for turns in range(5):  # the pause does not grow
        truth.next.append("resource-specific")
        assert (await bill.step_once(NOW + timedelta(seconds=turns))).retry == 1
    assert (await bill.step_once(NOW + timedelta(seconds=5))).sent == 1
