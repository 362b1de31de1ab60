"""`gateway billing decide`: nothing is sent twice unseen, nothing is overwritten, and each decision is kept."""

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog
from pydantic import SecretStr

from gateway.billing import commands, held
from gateway.billing.held import Judged, WantedDecision
from gateway.billing.outbox import Outbox
from gateway.billing.reporter import UsageReporter
from gateway.billing.stripe import Billing
from gateway.billing.windows import MeterEvent, StripeAnswer
from gateway.cli.console import Console
from gateway.config.settings import Settings
from gateway.kit.errors import ConfigError, OptionError
from gateway.ledger.store import Ledger
from gateway.sandbox import credentials
from gateway.sandbox.server import Sandbox
from gateway.stores.postgres import Pool
from tests.billing.outboxes import book, claim_one, customer, oldest_first, reject, retry
from tests.conftest import METER
from tests.support.stand_ins import Clock, sandbox_at

EIGHT = datetime(2026, 11, 25, 8, tzinfo=UTC)
HOUR = timedelta(hours=1)
NOW = EIGHT + 2 * HOUR
LATER = NOW + 21 * HOUR
FIRST = f"{METER}:cus_1:1795593600:0"
SECOND = f"{METER}:cus_1:1795593600:1"


class LosesAnswers:
    """Stripe, of which every answer is lost."""

    def __init__(self, billing: Billing) -> None:
        self._billing = billing

    async def account(self) -> str:
        return await self._billing.account()

    async def refusal(self, event_name: str) -> str | None:
        return await self._billing.refusal(event_name)

    async def deliver(self, event: MeterEvent) -> StripeAnswer:
        await self._billing.deliver(event)
        raise TimeoutError


@pytest.fixture
async def clock() -> Clock:
    return Clock(NOW.timestamp())


@pytest.fixture
async def sandbox(clock: Clock) -> AsyncIterator[Sandbox]:
    async with sandbox_at(clock) as running:
        running.stripe.customers.add(0, {}, customer_id="cus_1")
        yield running


@pytest.fixture
async def stripe(sandbox: Sandbox) -> AsyncIterator[Billing]:
    billing = Billing(credentials.STRIPE_SECRET_KEY, base_url=sandbox.stripe_base_url)
    await billing.ensure_meter(METER)
    yield billing
    await billing.close()


@pytest.fixture
def settings(database_url: str, sandbox: Sandbox) -> Settings:
    return Settings(
        database_url=SecretStr(database_url),
        stripe_secret_key=SecretStr(credentials.STRIPE_SECRET_KEY),
        stripe_base_url=sandbox.stripe_base_url,
        gateway_operator="Ada",
    )


def reporter(pool: Pool, stripe: Any) -> UsageReporter:
    log = structlog.get_logger()
    return UsageReporter(Outbox(pool), stripe, grace_s=300, monotonic=lambda: 0.0, random=lambda: 0.5, log=log)


async def unknown_event(ledger: Ledger, pool: Pool, stripe: Billing, clock: Clock, *, arrives: bool) -> None:
    """1.00 USD of the hour of 08:00, sent once, its answer lost; 21 hours later it is unknown."""
    await book(ledger, await customer(ledger), EIGHT, 1_000_000_000)
    if arrives:
        with pytest.raises(TimeoutError):
            await reporter(pool, LosesAnswers(stripe)).step_once(NOW)
    else:
        await Outbox(pool).freeze_closed(NOW, 300, account=await stripe.account())
        await Outbox(pool).claim(NOW, lease_s=60, events_max=1, account=await stripe.account())
    clock.now = LATER.timestamp()
    assert (await reporter(pool, stripe).step_once(LATER)).unknown == 1


async def decide(settings: Settings, action: Any, *, at: datetime = LATER, **wanted: Any) -> Judged:
    asked = WantedDecision(action, "a test", **{"identifier": FIRST, **wanted})
    (judged,) = await held.decide(settings, asked, now=at, is_sure=True)
    return judged


async def history(pool: Pool) -> list[tuple[object, ...]]:
    rows = await pool.fetch("select identifier, state, value from stripe_meter_events order by id")
    return [tuple(row) for row in rows]


def counted(sandbox: Sandbox) -> list[tuple[str, str]]:
    return [(event.identifier, event.value) for event in sandbox.stripe.events]


async def test_what_stripe_has_counted_is_not_sent_again(
    ledger: Ledger, pool: Pool, stripe: Billing, sandbox: Sandbox, settings: Settings, clock: Clock
) -> None:
    """Before: `billing again` made Stripe count 2 x 1.00 USD for one row."""
    await unknown_event(ledger, pool, stripe, clock, arrives=True)
    assert counted(sandbox) == [(FIRST, "1000000")]
    refused = await decide(settings, "reissue")
    assert "charge twice" in (refused.refusal or "")
    assert await history(pool) == [(FIRST, "unknown", 1_000_000)]
    assert await pool.fetchval("select count(*) from stripe_decisions") == 0
    assert (await decide(settings, "delivered")).is_done
    await reporter(pool, stripe).step_once(LATER + HOUR)
    assert counted(sandbox) == [(FIRST, "1000000")]
    assert await history(pool) == [(FIRST, "sent", 1_000_000)]


async def test_an_event_that_is_sent_again_stays_in_the_history(
    ledger: Ledger, pool: Pool, stripe: Billing, sandbox: Sandbox, settings: Settings, clock: Clock
) -> None:
    """Before: the new identifier overwrote the first one, and no table knew that it had been sent."""
    await unknown_event(ledger, pool, stripe, clock, arrives=False)
    assert "has not counted it" in ((await decide(settings, "delivered")).refusal or "")
    done = await decide(settings, "reissue")
    assert done.replaced == (SECOND, 0)
    assert (await reporter(pool, stripe).step_once(LATER + HOUR)).sent == 1
    assert counted(sandbox) == [(SECOND, "1000000")]
    assert await history(pool) == [(FIRST, "superseded", 1_000_000), (SECOND, "sent", 1_000_000)]
    row = await pool.fetchrow(
        "select d.who, d.action, d.why, d.evidence ->> 'verdict', e.identifier, n.identifier"
        " from stripe_decisions d join stripe_meter_events e on e.id = d.event_id"
        " join stripe_meter_events n on n.replaces = e.id"
    )
    assert tuple(row or ()) == ("Ada", "reissue", "a test", "not counted", FIRST, SECOND)
    outcomes = await pool.fetch(
        "select identifier, outcome from stripe_attempts a where outcome <> 'not_sent' order by id"
    )
    assert [tuple(each) for each in outcomes] == [(FIRST, "lost"), (SECOND, "delivered")]


async def test_it_may_be_decided_against_the_summaries_and_that_is_recorded(
    ledger: Ledger, pool: Pool, stripe: Billing, settings: Settings, clock: Clock
) -> None:
    await unknown_event(ledger, pool, stripe, clock, arrives=True)
    assert (await decide(settings, "reissue", is_forced=True)).is_done
    evidence = json.loads(await pool.fetchval("select evidence::text from stripe_decisions"))
    assert (evidence["verdict"], evidence["stripe_has"], evidence["forced"]) == ("counted", "1000000", True)


async def test_summaries_may_lag(ledger: Ledger, pool: Pool, stripe: Billing, settings: Settings, clock: Clock) -> None:
    await book(ledger, await customer(ledger), EIGHT, 1_000_000_000)
    outbox = Outbox(pool)
    await outbox.freeze_closed(NOW, 300)
    await reject(outbox, await claim_one(outbox, NOW), "400: no", NOW)
    clock.now = NOW.timestamp()
    early = NOW + timedelta(minutes=14)
    for action in ("reissue", "delivered"):
        assert "too early" in ((await decide(settings, action, at=early)).refusal or "")
    assert (await decide(settings, "reissue", at=NOW + timedelta(minutes=15))).is_done


async def test_a_preview_changes_nothing(
    ledger: Ledger, pool: Pool, stripe: Billing, settings: Settings, clock: Clock
) -> None:
    await unknown_event(ledger, pool, stripe, clock, arrives=False)
    out = io.StringIO()
    wanted = WantedDecision("reissue", "a test", identifier=FIRST)
    await commands.decide(settings, Console(file=out, width=60), wanted, now=LATER, is_sure=False, by=None)
    lines = out.getvalue().splitlines()
    assert FIRST in lines  # whole, on a line of its own
    assert "--yes does it" in lines[-1]
    assert await history(pool) == [(FIRST, "unknown", 1_000_000)]


async def test_settled_and_written_off_are_final_and_said_so(ledger: Ledger, pool: Pool, settings: Settings) -> None:
    outbox = Outbox(pool)
    for number, nano in ((1, 3_600_000_000), (2, 7_000)):
        await book(ledger, await customer(ledger, number), EIGHT, nano)
    await outbox.freeze_closed(NOW, 300)
    claims = await outbox.claim(NOW, lease_s=60, events_max=2)
    for claim in claims:
        await reject(outbox, claim, "400: No such customer")
    settle = WantedDecision("settle", "billed by hand", "in_1Q", identifier=FIRST)
    (settled,) = await held.decide(settings, settle, now=NOW, is_sure=True)
    rest = WantedDecision("write-off", "too small", error="no such CUSTOMER")
    (lost,) = await held.decide(settings, rest, now=NOW, is_sure=True)
    assert settled.is_done
    assert lost.is_done
    rows = await pool.fetch("select state, settled_ref from stripe_meter_events order by customer")
    assert [tuple(row) for row in rows] == [("settled", "in_1Q"), ("written_off", None)]
    decisions = await pool.fetch("select action, reference, why from stripe_decisions order by id")
    assert [tuple(row) for row in decisions] == [
        ("settle", "in_1Q", "billed by hand"),
        ("write-off", None, "too small"),
    ]
    with pytest.raises(OptionError, match="gateway billing held"):
        await held.decide(settings, settle, now=NOW, is_sure=True)


async def test_all_of_a_kind_at_once(
    ledger: Ledger, pool: Pool, stripe: Billing, sandbox: Sandbox, settings: Settings, clock: Clock
) -> None:
    outbox = Outbox(pool)
    for number in range(1, 4):
        sandbox.stripe.customers.add(0, {}, customer_id=f"cus_{number}") if number > 1 else None
        await book(ledger, await customer(ledger, number), EIGHT, 5_000)
    await outbox.freeze_closed(NOW, 300, account=await stripe.account())
    claims = await outbox.claim(NOW, lease_s=60, events_max=3, account=await stripe.account())
    for claim in claims:
        await reject(outbox, claim, "400: odd" if claim.event.customer == "cus_3" else "400: no meter", NOW)
    clock.now = LATER.timestamp()
    wanted = WantedDecision("reissue", "the meter is there again", states=("rejected",), error="no meter")
    done = await held.decide(settings, wanted, now=LATER, is_sure=True)
    assert [each.is_done for each in done] == [True, True]
    assert (await reporter(pool, stripe).step_once(LATER)).sent == 2
    assert (await outbox.status()).counts == {"rejected": 1, "superseded": 2, "sent": 2}


async def test_two_decisions_at_once_are_one(
    ledger: Ledger, pool: Pool, stripe: Billing, settings: Settings, clock: Clock
) -> None:
    await unknown_event(ledger, pool, stripe, clock, arrives=False)
    both = await asyncio.gather(decide(settings, "reissue"), decide(settings, "write-off"), decide(settings, "reissue"))
    done = [each for each in both if each.is_done]
    assert len(done) == 1
    assert all("changed meanwhile" in (each.refusal or "") for each in both if not each.is_done)
    assert await pool.fetchval("select count(*) from stripe_decisions") == 1
    live = await pool.fetchval("select count(*) from stripe_meter_events where state <> 'superseded'")
    assert live == 1


async def test_what_is_being_sent_cannot_be_decided(
    ledger: Ledger, pool: Pool, stripe: Billing, settings: Settings, clock: Clock
) -> None:
    """Neither while its lease is on, nor in the quarter of an hour after it, in which Stripe may count it."""
    await book(ledger, await customer(ledger), EIGHT, 1_000_000_000)
    outbox = Outbox(pool)
    await outbox.freeze_closed(NOW, 300)
    first = await claim_one(outbox, NOW)
    await retry(outbox, first, "no answer", NOW, after_s=1, in_doubt=True)
    await outbox.claim(LATER - HOUR - timedelta(seconds=1), lease_s=60, events_max=1)
    with pytest.raises(OptionError, match="gateway billing held"):
        await decide(settings, "reissue", at=LATER - HOUR)
    ended_at = LATER - HOUR + timedelta(seconds=59)
    clock.now = ended_at.timestamp()
    assert await outbox.expire_doubtful(ended_at) == 1
    at = ended_at + timedelta(minutes=14, seconds=59)
    assert "too early" in ((await decide(settings, "reissue", at=at)).refusal or "")
    assert (await decide(settings, "reissue", at=at + timedelta(seconds=1))).is_done


async def test_each_customer_is_asked_about_once(
    ledger: Ledger, pool: Pool, stripe: Billing, settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many of its events wait: Stripe would be asked thousands of times."""
    hours, outbox = 5, Outbox(pool)
    user = await customer(ledger)
    for hour in range(hours):
        await book(ledger, user, EIGHT - hour * HOUR, 5_000)
    await outbox.freeze_closed(NOW, 300)
    for _ in range(hours):
        await reject(outbox, await claim_one(outbox, NOW), "400: no", NOW)
    clock.now = LATER.timestamp()
    asked, read = [], Billing.read_counts

    async def counting(self: Billing, *about: Any) -> Any:
        asked.append(about[1:])
        return await read(self, *about)

    monkeypatch.setattr(Billing, "read_counts", counting)
    done = await held.decide(settings, WantedDecision("reissue", "a test"), now=LATER, is_sure=True)
    assert [each.is_done for each in done] == [True] * hours
    assert asked == [("cus_1", EIGHT - (hours - 1) * HOUR, EIGHT + HOUR)]


async def test_without_a_clock_of_its_own_postgresql_says_when_it_is(
    ledger: Ledger, pool: Pool, settings: Settings
) -> None:
    await book(ledger, await customer(ledger), EIGHT, 5_000)
    outbox = Outbox(pool)
    await outbox.freeze_closed(NOW, 300)
    await reject(outbox, await claim_one(outbox, NOW), "400: no", NOW)
    wanted = WantedDecision("delivered", "a test", identifier=FIRST, is_forced=True)
    before = await outbox.now()
    await held.decide(settings, wanted, now=None, is_sure=True)
    at = await pool.fetchval("select delivered_at from stripe_meter_events")
    assert before <= at <= await outbox.now()


async def test_without_a_key_only_force_decides(ledger: Ledger, pool: Pool, database_url: str) -> None:
    await book(ledger, await customer(ledger), EIGHT, 5_000)
    outbox = Outbox(pool)
    await outbox.freeze_closed(NOW, 300)
    await reject(outbox, await claim_one(outbox, NOW), "400: no")
    bare = Settings(database_url=SecretStr(database_url))
    with pytest.raises(ConfigError, match="STRIPE_SECRET_KEY"):
        await decide(bare, "reissue")
    assert (await decide(bare, "reissue", is_forced=True)).is_done


async def test_what_is_held_is_listed_whole(ledger: Ledger, pool: Pool, settings: Settings) -> None:
    outbox = Outbox(pool)
    await book(ledger, await customer(ledger), EIGHT, 3_600_000_000)
    await outbox.freeze_closed(NOW, 300)
    await reject(outbox, await claim_one(outbox, NOW), "400: no [meter]")
    out = io.StringIO()
    shown_at = datetime.now(UTC) + timedelta(hours=30)
    await commands.list_held(settings, Console(file=out, width=40), form="table", now=shown_at)
    lines = out.getvalue().splitlines()
    assert lines[0] == FIRST
    assert "cus_1 (user1@example.com), hour 2026-11-25 08:00 UTC, 30 h old" in lines[1]
    assert "3.600000 USD, rejected: 400: no [meter]" in lines[2]
    assert "in all: 1 event(s), 3.600000 USD" in lines[-1]
    for form in ("json", "csv"):
        out = io.StringIO()
        await commands.list_held(settings, Console(file=out), form=form, now=shown_at)
        text = out.getvalue()
        (row,) = json.loads(text) if form == "json" else csv.DictReader(io.StringIO(text))
        assert (row["identifier"], row["usd"], row["customer"], int(row["age_hours"])) == (
            FIRST,
            "3.600000",
            "cus_1",
            30,
        )


async def test_an_amount_from_before_a_subscription_can_be_sent_all_the_same(
    ledger: Ledger, pool: Pool, settings: Settings
) -> None:
    await book(ledger, await customer(ledger), EIGHT, 5_000)
    await pool.execute(
        "insert into stripe_subscriptions (item, id, customer, price, meter, currency, status, started_at, anchor,"
        " period_start, period_end, is_live, asked_at) values ('si', 'sub', 'cus_1', 'price_1', $1, 'usd',"
        " 'active', $2, $2, $2, $3, false, now())",
        METER, EIGHT + HOUR, EIGHT + timedelta(days=30),
    )  # fmt: skip
    outbox = Outbox(pool)
    await outbox.freeze_closed(NOW, 300)
    (event,) = await oldest_first(outbox)
    assert event.state == "unreportable"
    assert (await decide(settings, "reissue", at=NOW)).replaced == (SECOND, 0)
    _, fresh = await oldest_first(outbox)
    assert (fresh.state, fresh.timestamp) == ("pending", NOW)
    # Its invoice is that of the customer's own period, not of the calendar month.
    before = await pool.fetchval("select file_before from stripe_meter_events where id = $1", fresh.id)
    assert before == EIGHT + timedelta(days=30, minutes=45)
