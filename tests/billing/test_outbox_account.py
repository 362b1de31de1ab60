"""A meter event is for one Stripe account, and is sent under no other."""

from collections.abc import AsyncIterator
from datetime import timedelta

import aiohttp
import pytest
from structlog.testing import CapturingLogger

from gateway.billing.outbox import Outbox
from gateway.billing.reporter import UsageReporter
from gateway.billing.stripe import Billing
from gateway.kit.errors import ConfigError, DependencyDown
from gateway.ledger.store import Ledger
from gateway.sandbox import credentials
from gateway.sandbox.server import Sandbox
from gateway.stores.postgres import Pool
from tests.billing.outboxes import GRACE_S, HOUR, TEN, book, customer
from tests.billing.stripe_truth import KEY_END, StripeTruth
from tests.support.stand_ins import sandbox_at

NOW = TEN + 2 * HOUR


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with sandbox_at(NOW.timestamp) as server:
        yield server


class Reporter:
    """A `Bill` under one key, and what it logs."""

    def __init__(self, pool: Pool, truth: StripeTruth, key: str) -> None:
        self.log = CapturingLogger()
        self.billing = Billing(key, base_url=truth.url)
        self.bill = UsageReporter(
            Outbox(pool), self.billing, grace_s=300, monotonic=lambda: 0, random=lambda: 0.5, log=self.log
        )

    def alarms(self) -> list[str]:
        return [str(call.args[0]) for call in self.log.calls if call.method_name == "error"]


async def test_an_event_in_flight_is_not_sent_under_another_account(
    ledger: Ledger, pool: Pool, truth: StripeTruth
) -> None:
    user = await customer(ledger)
    await book(ledger, user, TEN, 5_000)
    truth.always = "429"
    ours = Reporter(pool, truth, "sk_live_1")
    assert (await ours.bill.step_once(NOW)).retry == 1
    await ours.billing.close()
    truth.always, truth.account = "ok", "acct_other"
    other = Reporter(pool, truth, "sk_live_2")
    for hours in range(3):
        assert (await other.bill.step_once(NOW + hours * HOUR)).sent == 0
    assert truth.events == {}
    assert other.alarms() == ["stripe_events_of_another_account"]  # once, not per pass
    # What comes meanwhile is the other account's, also for the same customer.
    await book(ledger, user, TEN + HOUR, 7_000)
    assert (await other.bill.step_once(NOW + 5 * HOUR)).sent == 1
    await other.billing.close()
    truth.account = "acct_truth"
    back = Reporter(pool, truth, "sk_live_1")
    assert (await back.bill.step_once(NOW + 6 * HOUR)).sent == 1
    await back.billing.close()
    assert truth.total() == 12
    rows = await pool.fetch("select account, value from stripe_meter_events order by id")
    assert [tuple(row) for row in rows] == [("acct_truth", 5), ("acct_other", 7)]


async def test_what_waits_for_another_account_is_counted(ledger: Ledger, pool: Pool, truth: StripeTruth) -> None:
    await book(ledger, await customer(ledger), TEN, 5_000)
    truth.always = "429"
    ours = Reporter(pool, truth, "sk_live_1")
    await ours.bill.step_once(NOW)
    assert ours.bill.others_waiting == 0
    await ours.billing.close()
    truth.always, truth.account = "ok", "acct_other"
    other = Reporter(pool, truth, "sk_live_2")
    await other.bill.step_once(NOW + HOUR)
    assert other.bill.others_waiting == 1
    await other.billing.close()


async def test_a_restricted_key_that_may_not_read_its_account_bills_nothing(
    ledger: Ledger, pool: Pool, truth: StripeTruth
) -> None:
    await book(ledger, await customer(ledger), TEN, 5_000)
    truth.lacks = "rak_accounts_kyc_basic_read"
    ours = Reporter(pool, truth, "rk_live_1")
    stopped = (await ours.bill.step_once(NOW)).stopped
    await ours.billing.close()
    assert stopped is not None
    assert "lacks the permission rak_accounts_kyc_basic_read" in stopped
    assert KEY_END not in stopped
    assert truth.calls == []
    assert (await Outbox(pool).status()).counts == {}


async def test_live_and_test_mode_of_one_account_are_two(ledger: Ledger, pool: Pool, truth: StripeTruth) -> None:
    await book(ledger, await customer(ledger), TEN, 5_000)
    truth.always = "429"
    live = Reporter(pool, truth, "rk_live_1")
    await live.bill.step_once(NOW)
    await live.billing.close()
    truth.always = "ok"
    tests = Reporter(pool, truth, "sk_test_1")
    assert (await tests.bill.step_once(NOW + HOUR)).sent == 0
    assert await Outbox(pool).of_other_accounts(await tests.billing.account()) == {"acct_truth": 1}
    await tests.billing.close()


async def test_what_was_frozen_before_accounts_were_kept_goes_to_the_first(ledger: Ledger, pool: Pool) -> None:
    outbox = Outbox(pool)
    await book(ledger, await customer(ledger), TEN, 5_000)
    await outbox.freeze_closed(NOW, GRACE_S)
    (claim,) = await outbox.claim(NOW, lease_s=60, events_max=5, account="acct_a")
    assert await outbox.claim(NOW + timedelta(seconds=61), lease_s=60, events_max=5, account="acct_b") == []
    (again,) = await outbox.claim(NOW + timedelta(seconds=61), lease_s=60, events_max=5, account="acct_a")
    assert again.event == claim.event


async def test_nothing_is_frozen_while_the_account_is_not_known(ledger: Ledger, pool: Pool, sandbox: Sandbox) -> None:
    await book(ledger, await customer(ledger), TEN, 5_000)
    for status, error in ((403, ConfigError), (500, DependencyDown)):
        trouble = {"path": "/v1/account", "status": status, "times": 2}
        async with aiohttp.ClientSession() as session:
            await session.post(f"{sandbox.stripe_base_url}/_control", json=trouble)
        billing = Billing(credentials.STRIPE_SECRET_KEY, base_url=sandbox.stripe_base_url)
        with pytest.raises(error):
            await billing.account()
        log = CapturingLogger()
        bill = UsageReporter(Outbox(pool), billing, grace_s=300, monotonic=lambda: 0, random=lambda: 0.5, log=log)
        counts = await bill.step_once(NOW)
        assert (counts.stopped is not None, counts.retry) == (status == 403, int(status == 500))
        assert await pool.fetchval("select count(*) from stripe_meter_events") == 0
        assert await billing.account() == "acct_sandbox/test"  # the stand-in, when it is well again
        await billing.close()
