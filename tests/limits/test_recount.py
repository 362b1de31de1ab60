"""Counters of budgets made from the ledger again: after a dead proxy, a correction, a lost Redis, by two at once."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from gateway.accounts.store import Accounts
from gateway.audit.budgets import compare
from gateway.embedded import ephemeral
from gateway.ledger.store import Ledger
from gateway.limits.budgets import Budget, Window
from gateway.limits.counters import KEPT, PIECE_MAX, Limits
from gateway.limits.recount import QUIET_PASSES, Recount
from gateway.limits.scripts import RECOUNT
from gateway.limits.spending import Spending
from gateway.stores.postgres import Pool
from gateway.stores.redis import open_redis
from gateway.usage.event import UsageEvent
from tests.limits.budget_counter import KEY, LATER, RANDOM, USD, BudgetCounter
from tests.support.events import AT, new_id
from tests.support.servers import memory_folder

HELD_MAX_S = 0.02
"""Seconds for which Valkey may answer nobody else."""


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


# A recount after an outage: any number of calls, and never a long script.


class AllContained(Spending):
    """A ledger that has every call, and says what they have cost in all."""

    def __init__(self, nano: int) -> None:
        self.nano = nano

    async def read_spent(
        self, window: Window, events: Sequence[str] = (), kept: Sequence[str] = ()
    ) -> tuple[int, list[str], list[str]]:
        return self.nano, list(events), list(kept)

    async def is_current(self, window: Window) -> bool:
        return True


class WatchedLimits(Limits):
    """Limits that write down after each script of a recount how many ids it took, and what a new call would see."""

    def __init__(self, redis: "Redis") -> None:
        super().__init__(redis, hold_s=600)
        self.pieces: list[int] = []
        self.counted: list[int] = []

    async def _run(self, script: str, arguments: list[Any]) -> Any:
        answer = await super()._run(script, arguments)
        if script == RECOUNT:
            self.pieces.append(len(arguments) - 5)
            sums = await self._redis.hmget(KEY, "base", "usum", "hsum")
            self.counted.append(sum(int(each or 0) for each in sums))
        return answer


async def leave_under_way(redis: "Redis", settled: int, held: int) -> None:
    """Calls of 3 nano-USD that are settled, and of 10 that are held, as an outage leaves them."""
    for name, count, nano, total in ((":u", settled, 3, "usum"), (":h", held, 10, "hsum")):
        for start in range(0, count, 10_000):
            ids = range(start, min(start + 10_000, count))
            await redis.hset(KEY + name, mapping={f"{name[1]}{i:035d}": nano for i in ids})
        await redis.hincrby(KEY, total, count * nano)


@pytest.mark.parametrize("base", [100, None])
async def test_a_recount_goes_in_pieces_between_which_the_counter_is_right(
    counter: BudgetCounter, redis: "Redis", base: int | None
) -> None:
    await counter.begin(100)
    await leave_under_way(redis, settled=2_500, held=300)
    if base is None:
        await redis.hdel(KEY, "base")
    limits, true = WatchedLimits(redis), 100 + 2_500 * 3 + 300 * 10
    assert await Recount(limits, AllContained(true - 300 * 9), now=lambda: LATER).step_once() == 1
    assert (limits.pieces, sum(limits.pieces)) == ([PIECE_MAX] * 5 + [300], 2_800)
    if base is not None:  # what is held counts as held, until the ledger's sum says what it has cost
        assert limits.counted == [true] * 5 + [true - 300 * 9]
    else:
        assert limits.counted == [true - 300 * 9] * 6
    assert await counter.figures() == (true - 300 * 9, 0, 0)


async def test_a_worker_that_was_overtaken_between_two_pieces_stops(counter: BudgetCounter, redis: "Redis") -> None:
    await counter.begin(100)
    await leave_under_way(redis, settled=2_500, held=0)
    slow, fast = WatchedLimits(redis), Limits(redis, hold_s=600)
    behind = await slow.state(KEY)
    first = [*behind.settled][:1500]
    assert await fast.recount(KEY, await fast.state(KEY), 100 + 1500 * 3, first)
    assert not await slow.recount(KEY, behind, 100 + 1400 * 3, first[:1400])
    assert await counter.figures() == (100 + 1500 * 3, 1000 * 3, 0)


class TimedLimits(Limits):
    """Limits that note what each trip to Valkey costs its main thread, which answers nobody else meanwhile: seconds of
    CPU, since what other processes take of the core on a busy machine is not its own."""

    def __init__(self, redis: "Redis", pid: int) -> None:
        super().__init__(redis, hold_s=600)
        self.schedstat = Path(f"/proc/{pid}/task/{pid}/schedstat")
        self.held_s: list[float] = []

    async def _asked_redis(self, reply: Any) -> Any:
        before_ns = int(self.schedstat.read_text().split()[0])
        try:
            return await super()._asked_redis(reply)
        finally:
            self.held_s.append((int(self.schedstat.read_text().split()[0]) - before_ns) / 1e9)


@pytest.mark.long
async def test_a_million_calls_never_hold_valkey_for_long() -> None:
    with ephemeral({"valkey"}, parent=memory_folder()) as running:
        async with open_redis(running.redis_url, timeout_s=60) as redis:
            budget = Budget(id="one", user_id=new_id(RANDOM), limit_nano=USD, period="day", hard=True, since=AT)
            limits = TimedLimits(redis, (await redis.info("server"))["process_id"])
            await limits.begin(KEY, msgspec.json.encode(budget.window(AT)), 0)
            await leave_under_way(redis, settled=1_000_000, held=100_000)
            await redis.config_set("slowlog-log-slower-than", int(HELD_MAX_S * 1e6))
            await redis.config_set("slowlog-max-len", 10_000)
            await redis.slowlog_reset()
            assert await Recount(limits, AllContained(4_000_000), now=lambda: LATER).step_once() == 1
            assert await redis.hmget(KEY, "base", "usum", "hsum") == [b"4000000", b"0", b"0"]
            trips = len(limits.held_s)
            assert trips > 1_100_000 / PIECE_MAX
            assert max(limits.held_s) < HELD_MAX_S
            # Valkey's own clock runs on while another process has the core, so some may look slow to it.
            assert await redis.slowlog_len() < trips / 4
