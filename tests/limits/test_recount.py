"""Counters of budgets made from the ledger again: after a dead proxy, a correction, a lost Redis, by two at once."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from random import Random

import msgspec
import pytest
from redis.asyncio import Redis

from gateway.accounts.store import Accounts
from gateway.audit.budgets import compare
from gateway.ledger.rows import LedgerEntry
from gateway.ledger.store import Ledger
from gateway.limits.budgets import Budget, Window
from gateway.limits.claims import Hold
from gateway.limits.counters import KEPT, Limits
from gateway.limits.recount import QUIET_PASSES, Recount
from gateway.limits.spending import Spending
from gateway.stores.postgres import Pool
from gateway.stores.redis import open_redis
from gateway.usage.event import UsageEvent
from tests.support.events import AT, call, new_id

USD = 1_000_000_000
RANDOM = Random(11)
KEY = "limit:b:one"
LATER = AT + timedelta(hours=2)


@pytest.fixture
async def redis(redis_url: str) -> "AsyncIterator[Redis]":
    client = open_redis(redis_url)
    yield client
    await client.aclose()


class BudgetCounter:
    """One user's daily budget of 1 USD, its counter, and the ledger."""

    def __init__(self, limits: Limits, ledger: Ledger, pool: Pool, user_id: str) -> None:
        self.limits, self.ledger, self.user_id = limits, ledger, user_id
        budget = Budget(id="one", user_id=user_id, limit_nano=USD, period="day", hard=True, since=AT)
        self.hold = Hold(KEY, budget.window(AT), USD // 4)
        self.recount = Recount(limits, Spending(pool), now=lambda: LATER)

    async def begin(self, nano: int = 0) -> None:
        await self.limits.begin(KEY, msgspec.json.encode(self.hold.window), nano)

    async def insert(self, *events: UsageEvent) -> None:
        await self.ledger.insert_batch([LedgerEntry.of(event) for event in events])

    def call(self, nano: int, **changes: object) -> UsageEvent:
        return call(self.user_id, new_id(RANDOM), cost_nano=nano, billed_nano=nano, **changes)  # type: ignore[arg-type]

    async def figures(self) -> tuple[int | None, int, int]:
        """The ledger's sum, settled since, held; nano-USD."""
        state = await self.limits.state(KEY)
        return state.base, sum(state.settled.values()), sum(state.held.values())


@pytest.fixture
async def counter(redis: "Redis", ledger: Ledger, pool: Pool) -> BudgetCounter:
    return BudgetCounter(
        Limits(redis, hold_s=600), ledger, pool, await Accounts(ledger.pool).create_user("owner@example.com")
    )


async def test_what_is_in_the_ledger_moves_into_the_sum(counter: BudgetCounter) -> None:
    await counter.begin()
    settled, running, dead = counter.call(7), counter.call(0), counter.call(20)
    for event in (settled, running, dead):
        await counter.limits.reserve(event.id, [counter.hold])
    await counter.limits.settle(settled.id, [counter.hold], tokens=0, cost=7, billed=7)
    assert await counter.recount.step_once() == 1
    assert await counter.figures() == (0, 7, 2 * (USD // 4))
    await counter.insert(settled, dead)  # the proxy of `dead` was killed; its row is the sweeper's
    assert await counter.recount.step_once() == 1
    assert await counter.figures() == (27, 0, USD // 4)


async def test_a_correction_counts_though_nothing_is_under_way(counter: BudgetCounter) -> None:
    await counter.begin()
    event = counter.call(30)
    await counter.insert(event)
    for _ in range(QUIET_PASSES + 1):
        await counter.recount.step_once()
    assert await counter.figures() == (30, 0, 0)
    await counter.insert(counter.call(-10, evidence="adjustment", adjusts=event.id, response_id=None, seconds=60))
    for _ in range(QUIET_PASSES):
        await counter.recount.step_once()
    assert await counter.figures() == (20, 0, 0)


async def test_two_workers_at_once_and_calls_between_them_lose_nothing(counter: BudgetCounter) -> None:
    await counter.begin()
    events = [counter.call(1) for _ in range(120)]

    async def live(some: list[UsageEvent]) -> None:
        for event in some:
            await counter.limits.settle(event.id, [counter.hold], tokens=0, cost=1, billed=1)
            await asyncio.sleep(0)
            await counter.insert(event)

    async def count() -> None:
        for _ in range(40):
            await counter.recount.step_once()
            await asyncio.sleep(0.002)

    await asyncio.gather(live(events[:60]), live(events[60:]), count(), count())
    base, settled, _ = await counter.figures()
    assert base is not None
    assert base + settled == 120
    await counter.recount.step_once()
    assert await counter.figures() == (120, 0, 0)


async def test_a_period_that_is_over_or_lost_is_forgotten(counter: BudgetCounter, redis: "Redis") -> None:
    await counter.begin()
    counter.recount = Recount(counter.limits, counter.recount._spending, now=lambda: LATER + timedelta(days=2))
    assert await counter.recount.step_once() == 0
    assert await counter.limits.windows() == {}
    await counter.begin()
    await redis.delete(KEY)
    assert await counter.recount.step_once() == 0
    assert await counter.limits.windows() == {}


async def test_scopes_periods_and_models_add_up_as_the_ledger_says(
    counter: BudgetCounter, pool: Pool, ledger: Ledger
) -> None:
    key = await Accounts(ledger.pool).link_key(counter.user_id, "key_a")
    meeting = "00000000-0000-7000-8000-00000000000b"
    await pool.execute("insert into meetings (id, user_id, room_name) values ($1, $2, 'r')", meeting, counter.user_id)
    await pool.execute(
        "insert into credit_entries (user_id, amount_usd, created_at) values ($1, 1, $2)", counter.user_id, AT
    )
    await counter.insert(
        counter.call(1, api_key_id=key),
        counter.call(2, meeting_id=meeting),
        counter.call(4, model="gpt-4.1-2025-04-14"),
        counter.call(8, model="gpt-4.1-mini"),
        counter.call(16, seconds=86_400),
        counter.call(32, seconds=-12 * 60),  # 10:03, within the hour in which the `total` begins at 10:15
    )
    spending = Spending(pool)

    async def spent(**scope: object) -> int:
        plain = {"id": "b", "user_id": counter.user_id, "limit_nano": 1, "period": "day", "hard": True, "since": AT}
        budget = msgspec.convert({**plain, **scope}, Budget)
        return (await spending.read_spent(budget.window(AT)))[0]

    assert await spent() == 1 + 2 + 4 + 8 + 32
    assert await spent(api_key_id=key) == 1
    assert await spent(meeting_id=meeting) == 2
    assert await spent(model="gpt-4.1") == 4
    assert await spent(period="month") == 63
    assert await spent(period="total") == 31
    assert await spent(counts="billed_usd", period="total") == 31


def test_periods_are_of_utc() -> None:
    at = datetime(2026, 12, 31, 23, 59, tzinfo=UTC)
    budget = Budget(id="b", user_id="u", limit_nano=1, period="month", hard=True, since=AT)
    assert budget.window(at) == Window(budget, datetime(2026, 12, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
    daily = msgspec.structs.replace(budget, period="day")
    assert daily.window(at).end == datetime(2027, 1, 1, tzinfo=UTC)


# What the audit says of them.


async def test_the_audit_compares_counters_with_the_ledger(counter: BudgetCounter, redis: "Redis", pool: Pool) -> None:
    await counter.begin()
    first, second, running = counter.call(7), counter.call(5), counter.call(3)
    for event in (first, second, running):
        await counter.limits.reserve(event.id, [counter.hold])
    for event, nano in ((first, 7), (second, 5)):
        await counter.limits.settle(event.id, [counter.hold], tokens=0, cost=nano, billed=nano)
    await counter.insert(first)  # counted in the ledger and in Redis, and one in Redis only: that is not a difference
    waits: list[float] = []

    async def recounted(seconds: float) -> None:
        waits.append(seconds)
        await counter.recount.step_once()

    async def look() -> tuple[int, int, str]:
        counted = await compare(counter.limits, Spending(pool), recount_s=10, sleep=recounted)
        return counted.periods, counted.wrong.found, "".join(counted.wrong.examples)

    assert (await look(), waits) == ((1, 0, ""), [])
    await counter.insert(counter.call(20))  # swept, say: a recount brings it in
    assert (await look(), len(waits)) == ((1, 0, ""), 1)
    await redis.hset(KEY, "base", 1)  # somebody's hand
    assert (await look(), len(waits)) == ((1, 0, ""), 2)


async def test_the_audit_finds_a_counter_that_no_recount_fixes(
    counter: BudgetCounter, redis: "Redis", pool: Pool
) -> None:
    await counter.begin()
    await counter.insert(counter.call(20))
    waited = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal waited
        waited += seconds

    counted = await compare(counter.limits, Spending(pool), recount_s=10, sleep=sleep)
    assert (counted.periods, counted.wrong.found, waited) == (1, 1, 10)
    assert counted.wrong.examples == (f"{KEY}: 0 nano-USD counted, 20 spent",)
    await redis.aclose()
    away = Limits(open_redis("redis://127.0.0.1:1"), hold_s=600)
    counted = await compare(away, Spending(pool), recount_s=10, sleep=sleep)
    assert (counted.wrong.found, counted.why_not.split(":")[0]) == (0, "counters of budgets not compared")


async def test_what_is_kept_for_a_call_goes_when_its_cost_is_known(counter: BudgetCounter) -> None:
    await counter.begin()
    row = counter.call(USD // 100, evidence="estimated")
    await counter.limits.reserve(row.id, [counter.hold])
    cost = USD // 100
    for _ in range(2):  # idempotent
        await counter.limits.settle(row.id, [counter.hold], tokens=0, cost=cost, billed=cost, keeps_hold=True)
    kept = USD // 4 - cost
    assert await counter.figures() == (0, cost, kept)
    await counter.insert(row)
    await counter.recount.step_once()
    assert await counter.figures() == (cost, 0, kept)  # its own row says no more than the estimate
    exact = msgspec.structs.replace(
        counter.call(USD // 10, evidence="adjustment"), adjusts=row.id, response_id=None, id=new_id(RANDOM)
    )
    await counter.insert(exact)
    await counter.recount.step_once()
    assert await counter.figures() == (cost + USD // 10, 0, 0)


async def test_what_is_kept_ends_after_a_day(counter: BudgetCounter, redis: "Redis") -> None:
    await counter.begin()
    await counter.limits.reserve("a", [counter.hold])
    await counter.limits.settle("a", [counter.hold], tokens=0, cost=0, billed=0, keeps_hold=True)
    seconds, _ = await redis.time()
    until = await redis.zscore(f"{KEY}:e", f"{KEPT}a")
    assert until is not None
    assert 86_390 < until - seconds <= 86_400
    assert await redis.ttl(f"{KEY}:h") > 86_400
    await redis.zadd(f"{KEY}:e", {f"{KEPT}a": 1})
    (taken,) = await counter.limits.reserve("b", [counter.hold])
    assert (taken.refused, taken.more) == (False, USD // 4)
