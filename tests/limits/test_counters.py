"""Limits on a real Valkey: all or nothing, and never more than the limit, whoever asks at once."""

import asyncio
import json
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from gateway.limits.budgets import Budget, Window
from gateway.limits.claims import Claim, Hold, RateClaim, Slots, Taken
from gateway.limits.counters import Limits, NotCounted
from gateway.stores.redis import open_redis
from tests.limits import limits_process

USD = 1_000_000_000
AT = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.fixture
async def redis(redis_url: str) -> "AsyncIterator[Redis]":
    client = open_redis(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
def limits(redis: "Redis") -> Limits:
    return Limits(redis, hold_s=600)


def rate(limit: int, cost: int = 1, *, key: str = "limit:k:a:requests", period_s: float = 60) -> RateClaim:
    return RateClaim(key, "tokens" if cost != 1 else "requests", limit, period_s, cost)


def hold(nano: int, limit: int, *, hard: bool = True, key: str = "limit:b:one") -> Hold:
    budget = Budget(id="one", user_id="u", limit_nano=limit, period="total", hard=hard, since=AT)
    return Hold(key, Window(budget, AT, None), nano)


async def reserve(limits: Limits, *claims: Claim, event: str | None = None) -> list[Taken]:
    return await limits.reserve(event or str(uuid4()), claims)


async def test_a_bucket_holds_its_limit_and_fills_evenly(limits: Limits) -> None:
    began_s = time.monotonic()
    for left in (2, 1, 0):
        (taken,) = await reserve(limits, rate(3))
        assert (taken.refused, taken.used) == (False, left)
    (taken,) = await reserve(limits, rate(3))
    passed_ms = 1000 * (time.monotonic() - began_s) + 2  # both clocks are read to the millisecond
    assert taken.refused
    assert taken.used == 0
    assert 20_000 - passed_ms <= taken.wait_ms <= 20_000  # a third of a minute
    assert 60_000 - passed_ms <= taken.more <= 60_000


async def test_more_than_the_bucket_never_fits(limits: Limits) -> None:
    (taken,) = await reserve(limits, rate(100, 101))
    assert (taken.refused, taken.wait_ms) == (True, -1)
    (taken,) = await reserve(limits, rate(100, 100))
    assert not taken.refused


async def test_tokens_are_settled_to_what_was_used(limits: Limits) -> None:
    claim = rate(1000, 900)
    await reserve(limits, claim, event="e")
    assert (await reserve(limits, rate(1000, 200)))[0].refused
    await limits.settle("e", [claim], tokens=100, cost=0, billed=0)
    (taken,) = await reserve(limits, rate(1000, 800))
    assert not taken.refused
    await limits.settle("x", [rate(1000, 800)], tokens=5000, cost=0, billed=0)  # more than was thought: a debt
    assert (await reserve(limits, rate(1000, 2)))[0].wait_ms > 60_000


async def test_slots_are_free_again_and_never_more(limits: Limits, redis: "Redis") -> None:
    slots = Slots("limit:k:a:running", 2)
    assert [(await reserve(limits, slots, event=name))[0].refused for name in "abc"] == [False, False, True]
    await limits.settle("a", [slots], tokens=0, cost=0, billed=0)
    assert not (await reserve(limits, slots, event="c"))[0].refused
    await redis.zadd(slots.key, {"b": 1.0, "c": 1.0})  # their proxies died a minute ago
    assert not (await reserve(limits, slots, event="d"))[0].refused
    await limits.renew("b", [slots])  # what is gone stays gone
    assert await redis.zrange(slots.key, 0, -1) == [b"d"]


async def test_nothing_is_taken_unless_everything_is(limits: Limits) -> None:
    full = Slots("limit:k:a:running", 1)
    await reserve(limits, full)
    await limits.begin("limit:b:one", b"{}", 0)
    for _ in range(10):
        taken = await reserve(limits, rate(2), hold(USD, 2 * USD), full)
        assert [each.refused for each in taken] == [False, False, True]
    assert (await reserve(limits, rate(2)))[0].used == 1
    assert (await limits.state("limit:b:one")).held == {}


async def test_a_budget_wants_the_ledger_s_sum_first(limits: Limits) -> None:
    with pytest.raises(NotCounted) as raised:
        await reserve(limits, hold(1, 10))
    assert raised.value.keys == {"limit:b:one"}
    await limits.begin("limit:b:one", b"{}", 9)
    await limits.begin("limit:b:one", b"{}", 0)  # another proxy was slower
    (taken,) = await reserve(limits, hold(1, 10))
    assert (taken.refused, taken.used, taken.more) == (False, 9, 1)
    (taken,) = await reserve(limits, hold(1, 10))
    assert (taken.refused, taken.used, taken.more) == (True, 9, 1)
    (taken,) = await reserve(limits, hold(1, 10, hard=False))
    assert not taken.refused


async def test_what_is_settled_counts_once_and_is_recounted(limits: Limits) -> None:
    claim = hold(5, 100)
    await limits.begin(claim.key, b"{}", 10)
    await reserve(limits, claim, event="e")
    for _ in range(2):
        await limits.settle("e", [claim], tokens=0, cost=3, billed=7)
    state = await limits.state(claim.key)
    assert (state.base, state.settled, state.held) == (10, {"e": 3}, {})
    await reserve(limits, claim, event="dead")
    assert await limits.recount(claim.key, state, 15, ["e", "dead"])
    assert not await limits.recount(claim.key, state, 10, [])  # an older look must not undo it
    after = await limits.state(claim.key)
    assert (after.base, after.settled, after.held) == (15, {}, {})
    assert (await reserve(limits, claim))[0].used == 15


async def test_a_hold_that_nobody_settles_ends_by_itself(redis: "Redis") -> None:
    limits, claim = Limits(redis, hold_s=0), hold(60, 100)
    await limits.begin(claim.key, b"{}", 0)
    for _ in range(5):
        assert not (await reserve(limits, claim))[0].refused
    assert len((await limits.state(claim.key)).held) == 1


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.integers(1, 9), st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=20))
async def test_held_and_spent_never_exceed_a_hard_budget(
    redis: "Redis", limit: int, calls: list[tuple[int, int]]
) -> None:
    limits, key = Limits(redis, hold_s=600), f"limit:b:{uuid4()}"
    await limits.begin(key, b"{}", 0)
    spent = 0
    for most, part in calls:
        claim, event = hold(most, limit * 10, key=key), str(uuid4())
        (taken,) = await limits.reserve(event, [claim])
        assert taken.refused == (spent + most > limit * 10)
        if not taken.refused:
            cost = min(most, part)
            await limits.settle(event, [claim], tokens=0, cost=cost, billed=0)
            spent += cost
    assert spent <= limit * 10
    assert sum((await limits.state(key)).settled.values()) == spent


async def test_many_at_once_over_several_connections(redis_url: str) -> None:
    clients = [open_redis(redis_url) for _ in range(4)]
    limits = [Limits(client, hold_s=600) for client in clients]
    await limits[0].begin("limit:b:one", b"{}", 0)
    claims: list[Claim] = [hold(USD, 7 * USD), Slots("limit:k:a:running", 5)]
    taken = await asyncio.gather(*(limits[i % 4].reserve(f"e{i}", claims) for i in range(64)))
    let_in = [one for one in taken if not any(each.refused for each in one)]
    assert len(let_in) == 5
    for client in clients:
        await client.aclose()


async def test_a_restarted_server_is_told_the_scripts_again(limits: Limits, redis: "Redis") -> None:
    await reserve(limits, rate(5))
    await redis.script_flush()
    assert (await reserve(limits, rate(5)))[0].used == 3


@pytest.mark.parametrize(("cap", "slots", "rate_limit"), [(1_000, 6, 100_000), (10_000_000, 50, 90)])
async def test_several_processes_never_exceed_any_limit(
    redis_url: str, redis: "Redis", limits: Limits, cap: int, slots: int, rate_limit: int
) -> None:
    await limits.begin(limits_process.BUDGET, b"{}", 0)
    arguments = ["-m", "tests.limits.limits_process", redis_url]
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, *arguments, *map(str, (seed, cap, slots, rate_limit)), stdin=PIPE, stdout=PIPE
        )
        for seed in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    answers = [asyncio.create_task(process.communicate(b"\n")) for process in processes]
    began = time.monotonic()
    while not all(answer.done() for answer in answers):
        state = await limits.state(limits_process.BUDGET)
        assert sum(state.settled.values()) + sum(state.held.values()) <= cap
        assert await redis.zcard(limits_process.SLOTS) <= slots
        await asyncio.sleep(0.005)
    told = [json.loads((await answer)[0]) for answer in answers]
    assert [process.returncode for process in processes] == [0, 0, 0]
    settled = {event: nano for one in told for event, nano in one["settled"].items() if nano}
    state = await limits.state(limits_process.BUDGET)
    assert (state.settled, state.held) == (settled, {})
    let_in = sum(one["let_in"] for one in told)
    if rate_limit < 3 * limits_process.CALLS:
        came_free = rate_limit * (time.monotonic() - began) / 60  # while they ran
        assert rate_limit <= let_in <= rate_limit + came_free
    else:
        assert sum(settled.values()) > cap // 2  # the budget was near its end
