"""From the stream into the ledger exactly once, whatever repeats, breaks or dies in between."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from random import Random, uniform
from typing import Any

import asyncpg
import pytest

from gateway.accounts.store import Accounts
from gateway.kit.errors import DependencyDown
from gateway.kit.loops import Loops
from gateway.ledger.flush import Flush
from gateway.ledger.store import Ledger
from gateway.ledger.stream import Buffer, Depth
from gateway.stores.postgres import Pool, open_pool
from gateway.stores.redis import open_redis
from gateway.usage.event import UsageEvent, encode
from tests.conftest import METER, WINDOW_S
from tests.support.events import call, new_id, sums_are_right
from tests.support.servers import free_port

LATER = datetime(2026, 11, 22, 12, 30, tzinfo=UTC)


class Clock:
    """Monotonic seconds that only a test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def writer(buffer: Buffer, ledger: Ledger, clock: Clock, consumer: str = "a", **changes: Any) -> Flush:
    settings: dict[str, Any] = {"batch_rows_max": 100, "interval_s": 0.001, "claim_idle_s": 30.0}
    settings["now"] = lambda: LATER
    return Flush(buffer, ledger, consumer=consumer, monotonic=clock, **{**settings, **changes})


async def some_calls(ledger: Ledger, count: int, seed: int = 5) -> list[UsageEvent]:
    random = Random(seed)
    owners = []
    for i in range(3):
        user = await Accounts(ledger.pool).create_user(f"u{i}@example.com")
        owners.append((user, await Accounts(ledger.pool).link_key(user, f"key_{i}")))
    events = []
    for i in range(count):
        user, key = random.choice(owners)
        events.append(call(user, new_id(random), api_key_id=key, seconds=i * 60, cost_nano=i, billed_nano=i))
    return events


def entries(events: Sequence[UsageEvent]) -> list[tuple[str, bytes]]:
    return [(event.id, encode(event)) for event in events]


async def check(pool: Pool, events: Sequence[UsageEvent]) -> None:
    """Every call has its one row, and every sum says the same."""
    rows = await pool.fetch("select id::text, (billed_usd * 1000000000)::bigint from openai_usage order by id")
    assert [tuple(row) for row in rows] == sorted((event.id, event.billed_nano) for event in events)
    assert await sums_are_right(pool)


async def test_a_batch_is_committed_and_leaves_the_stream(buffer: Buffer, ledger: Ledger, pool: Pool) -> None:
    events = await some_calls(ledger, 250)
    await buffer.append(entries(events))
    flush = writer(buffer, ledger, Clock())
    assert [await flush.step_once() for _ in range(4)] == [100, 100, 50, 0]
    assert await buffer.depth() == Depth(0, 0)
    assert (flush.entries_total, flush.quarantined_total) == (250, 0)
    await check(pool, events)


async def test_repeats_in_the_stream_count_once(buffer: Buffer, ledger: Ledger, pool: Pool) -> None:
    events = await some_calls(ledger, 60)
    sent = entries(events) * 3
    Random(1).shuffle(sent)
    await buffer.append(sent)
    flush = writer(buffer, ledger, Clock(), batch_rows_max=17)
    while await flush.step_once():
        pass
    await check(pool, events)
    assert await pool.fetchval("select sum(duplicates) from flush_counters") == 120


async def test_poison_goes_to_quarantine_and_the_rest_lands(buffer: Buffer, ledger: Ledger, pool: Pool) -> None:
    good = await some_calls(ledger, 40)
    user = good[0].user_id
    bad = [
        ("nul", encode(call(user, "nul", model="\x00"))),
        ("surrogate", encode(call(user, "surrogate")).replace(b"gpt-5-mini", rb"\ud800")),
        ("overflow", encode(call(user, "overflow", total_tokens=10**30))),
        ("stranger", encode(call("00000000-0000-7000-8000-00000000000f", "stranger"))),
        ("junk", b"\xff\x00{"),
        ("", b""),
    ]
    # Ids that a ledger row could have, so that it is the value that is refused and not the id.
    random = Random(9)
    bad = [(new_id(random), raw) if name not in ("junk", "") else (name, raw) for name, raw in bad]
    bad = [
        (event_id, raw.replace(name.encode(), event_id.encode()))
        for (event_id, raw), name in zip(bad, ("nul", "surrogate", "overflow", "stranger", "-", "-"), strict=True)
    ]
    mixed = entries(good) + bad
    Random(2).shuffle(mixed)
    await buffer.append(mixed)
    flush = writer(buffer, ledger, Clock())
    assert await flush.step_once() == 46
    assert flush.quarantined_total == 6
    kept = await pool.fetch("select event_id, raw from usage_quarantine")
    assert {(row[0], row[1]) for row in kept} == set(bad)
    assert await buffer.depth() == Depth(0, 0)
    await check(pool, good)


async def test_two_writers_share_the_work(buffer: Buffer, ledger: Ledger, pool: Pool) -> None:
    events = await some_calls(ledger, 400)
    await buffer.append(entries(events))
    writers = [writer(buffer, ledger, Clock(), consumer=name, batch_rows_max=20) for name in ("a", "b")]

    async def drain(flush: Flush) -> int:
        while await flush.step_once():
            pass
        return flush.entries_total

    shares = await asyncio.gather(*map(drain, writers))
    assert sum(shares) == 400
    assert all(shares)
    await check(pool, events)


async def test_a_helper_works_only_while_there_is_a_backlog(buffer: Buffer, ledger: Ledger, pool: Pool) -> None:
    events = await some_calls(ledger, 420)
    lead = writer(buffer, ledger, Clock(), consumer="a", batch_rows_max=20)
    helper = writer(buffer, ledger, Clock(), consumer="b", batch_rows_max=20)
    async with looped(lead.turn_pause_s, partial(helper.turn_pause_s, helps=lead)):
        for event in events[:20]:
            await buffer.append(entries([event]))
            while (await buffer.depth()).entries:
                await asyncio.sleep(0.002)
        assert helper.entries_total == 0
        await buffer.append(entries(events[20:]))
        async with asyncio.timeout(60):
            while (await buffer.depth()).entries:
                await asyncio.sleep(0.01)
        assert lead.entries_total + helper.entries_total == 420
        assert helper.entries_total > 0
    await check(pool, events)


async def test_what_another_left_is_taken_over_in_time(buffer: Buffer, ledger: Ledger, pool: Pool) -> None:
    events = await some_calls(ledger, 30)
    await buffer.append(entries(events))
    await buffer.read("dead", 30, 0)
    clock = Clock()
    flush = writer(buffer, ledger, clock, claim_idle_s=0.05)
    await asyncio.sleep(0.06)
    assert await flush.step_once() == 30
    await check(pool, events)


async def test_two_writers_with_the_same_entries_make_one_row_each(buffer: Buffer, ledger: Ledger, pool: Pool) -> None:
    """A writer that was stopped wakes up after its entries were taken over and written."""
    events = await some_calls(ledger, 30)
    await buffer.append(entries(events))
    zombie, other = writer(buffer, ledger, Clock(), "zombie"), writer(buffer, ledger, Clock(), "b", claim_idle_s=0.0)
    zombie._held = await buffer.read("zombie", 100, 0)
    await asyncio.sleep(0.002)
    assert await other.step_once() == 30
    assert await zombie.step_once() == 30
    assert await buffer.depth() == Depth(0, 0)
    await check(pool, events)


async def test_postgres_away_keeps_the_batch_and_the_next_step_lands_it(
    buffer: Buffer, database_url: str, pool: Pool, ledger: Ledger
) -> None:
    events = await some_calls(ledger, 10)
    await buffer.append(entries(events))
    weak = await open_pool(database_url, statement_timeout_s=1.0)
    flush = writer(buffer, Ledger(weak, meter=METER, window_s=WINDOW_S), Clock())
    blocker = await asyncpg.connect(database_url)
    async with blocker.transaction():
        await blocker.execute("lock table openai_usage in exclusive mode")
        for _ in range(2):
            with pytest.raises(DependencyDown, match="postgres"):
                await flush.step_once()
        assert await buffer.depth() == Depth(10, 10)
    await blocker.close()
    assert await flush.step_once() == 10
    await check(pool, events)
    await weak.close()


async def test_a_cut_connection_is_an_outage_and_then_heals(buffer: Buffer, ledger: Ledger, pool: Pool) -> None:
    events = await some_calls(ledger, 10)
    await buffer.append(entries(events))
    flush = writer(buffer, ledger, Clock())
    await pool.execute("create sequence cuts")
    await pool.execute(
        "create function cut() returns trigger language plpgsql as $$ begin if nextval('cuts') = 1 then"
        " perform pg_terminate_backend(pg_backend_pid()); end if; return null; end $$"
    )
    await pool.execute("create trigger cut after insert on openai_usage for each statement execute function cut()")
    with pytest.raises(DependencyDown, match="postgres"):
        await flush.step_once()
    assert await flush.step_once() == 10
    await check(pool, events)


async def test_losing_all_of_redis_loses_no_writer(buffer: Buffer, redis_url: str, ledger: Ledger, pool: Pool) -> None:
    events = await some_calls(ledger, 20)
    flush = writer(buffer, ledger, Clock())
    await buffer.append(entries(events[:10]))
    assert await flush.step_once() == 10
    redis = open_redis(redis_url)
    await redis.flushall()
    await redis.aclose()
    assert await flush.step_once() == 0
    await buffer.append(entries(events))
    assert await flush.step_once() == 20
    await check(pool, events)


async def test_the_loop_stops_when_told_and_takes_its_name_along(
    buffer: Buffer, redis_url: str, ledger: Ledger, pool: Pool
) -> None:
    events = await some_calls(ledger, 30)
    stop = asyncio.Event()

    def after_first(name: str) -> None:
        if name == "flush.acked":
            stop.set()

    flush = writer(buffer, ledger, Clock(), batch_rows_max=100, failpoint=after_first)
    await buffer.append(entries(events))
    async with looped(flush.turn_pause_s):
        await asyncio.wait_for(stop.wait(), 60)
    await flush.leave()
    await check(pool, events)
    redis = open_redis(redis_url)
    assert await redis.xinfo_consumers("gateway:usage", "ledger") == []
    await redis.aclose()


async def test_the_loop_waits_out_an_outage(ledger: Ledger) -> None:
    redis = open_redis(f"redis://127.0.0.1:{free_port()}/0")
    flush = writer(Buffer(redis, stream="s"), ledger, Clock())
    async with looped(flush.turn_pause_s) as loops:
        while loops.waiting_on is None:
            await asyncio.sleep(0.01)
        assert loops.waiting_on == "redis"
    await flush.leave()
    await redis.aclose()


@contextlib.asynccontextmanager
async def looped(*turns: Callable[[], Awaitable[float]]) -> AsyncIterator[Loops]:
    """Writers that step until the end of the block, and complete their last step."""
    loops = Loops(uniform=uniform)
    for number, turn in enumerate(turns):
        loops.paced(f"flush {number}", turn, finishes=True)
    async with loops:
        yield loops


async def start(
    database_url: str, redis_url: str, failpoint: str, passes: int, consumer: str
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.ledger.flush_process", database_url, redis_url, failpoint, str(passes), consumer
    )


@pytest.mark.long
@pytest.mark.parametrize("failpoint", ["flush.read", "flush.committed", "flush.acked"])
async def test_kill_9_leaves_the_ledger_right(
    buffer: Buffer, database_url: str, redis_url: str, ledger: Ledger, pool: Pool, failpoint: str
) -> None:
    """A writer dies in its third batch; those who come after it finish, and nothing counts twice (rows 21-23)."""
    events = await some_calls(ledger, 100)
    await buffer.append(entries(events))
    killed = await start(database_url, redis_url, failpoint, 2, "killed")
    assert await killed.wait() == -signal.SIGKILL
    rows = await pool.fetchval("select count(*) from openai_usage")
    depth = await buffer.depth()
    expected = {"flush.read": (40, 60, 20), "flush.committed": (60, 60, 20), "flush.acked": (60, 40, 0)}
    assert (rows, depth.entries, depth.unacknowledged) == expected[failpoint]
    heirs = [await start(database_url, redis_url, "none", 0, name) for name in ("b", "c")]
    assert [await heir.wait() for heir in heirs] == [0, 0]
    assert await buffer.depth() == Depth(0, 0)
    await check(pool, events)
