"""What fills a Redis, a piece at a time and by one process; and a full one is said by whoever meets it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from redis.asyncio import Redis

from gateway.config.settings import Settings
from gateway.doctor.checks import run_check
from gateway.doctor.stores import redis_memory
from gateway.hosts.open_calls import CALLS
from gateway.kit.errors import DependencyFull
from gateway.kit.metrics import Status
from gateway.ledger.stream import OWNER_PREFIX, Buffer
from gateway.limits.claims import RateClaim
from gateway.limits.counters import PREFIX, Limits
from gateway.processes.admin import Board
from gateway.processes.redis_memory import RedisFigures, open_walks
from gateway.stores.redis import open_redis
from gateway.stores.redis_memory import MARK, PIECE, MemoryWalk

STREAM = "gateway:usage"
OWNERS = 2 * PIECE


@pytest.fixture
async def redis(redis_url: str) -> "AsyncIterator[Redis]":
    client = open_redis(redis_url)
    yield client
    await client.config_set("maxmemory", 0)
    await client.aclose()


async def fill(redis: "Redis", buffer: Buffer) -> None:
    await buffer.set_owners([f"resp_{number}" for number in range(OWNERS)], "user")
    await buffer.append([(str(number), b"e" * 1000) for number in range(100)])
    await redis.hset(f"{PREFIX}b:one:u", mapping={f"event-{number}": "1" * 100 for number in range(1000)})
    await redis.hset(f"{CALLS}host", mapping={str(number): "o" * 300 for number in range(100)})
    await redis.set("somebody's", "x" * 50_000)


async def test_a_walk_finds_every_purpose_in_pieces(redis: "Redis", buffer: Buffer) -> None:
    await fill(redis, buffer)
    walk = MemoryWalk(redis, stream=STREAM, name="a")
    looks = [await walk.look()]
    while not looks[-1].is_whole:
        looks.append(await walk.look())
    assert len(looks) >= OWNERS / PIECE
    found = looks[-1].by_purpose
    assert 100_000 < found["stream"] < 300_000
    assert 100_000 < found["limits"] < 300_000
    assert OWNERS * 50 < found["owners"] < OWNERS * 200
    assert 30_000 < found["hosts"] < 90_000
    assert found["other"] > 50_000
    assert sum(found.values()) == looks[-1].used
    await redis.unlink(f"{PREFIX}b:one:u")
    assert (await walk.look()).by_purpose["limits"] == found["limits"]  # of the last whole walk
    assert OWNER_PREFIX == "owner:"


async def test_one_process_walks_at_a_time(redis: "Redis") -> None:
    one, other = (MemoryWalk(redis, stream=STREAM, name=name) for name in ("one", "other"))
    assert [await walk.is_mine() for walk in (one, other, one)] == [True, False, True]
    await redis.delete(MARK)  # it is gone
    assert [await walk.is_mine() for walk in (other, one)] == [True, False]


async def test_a_full_redis_is_said(redis: "Redis", redis_url: str, buffer: Buffer) -> None:
    async with AsyncExitStack() as stack:
        given = Settings.of({"REDIS_URL": redis_url, "LIMITS_REDIS_URL": redis_url})
        figures = RedisFigures(open_walks(stack, given, "worker"))
        await figures.look()
        said = [figures.full]
        await redis.config_set("maxmemory", 1_000)
        await figures.look()
        assert [*said, figures.full] == [None, "redis, which is full"]
        seen = {(sample.name, sample.labels): sample.value for sample in figures.samples()}
        assert seen["gateway_redis_limit_bytes", ("main",)] == seen["gateway_redis_limit_bytes", ("limits",)] == 1_000
        assert seen["gateway_redis_used_bytes", ("main",)] > 1_000
        with pytest.raises(DependencyFull):
            await buffer.append([("1", b"e")])
        with pytest.raises(DependencyFull):
            await Limits(redis, hold_s=60).reserve("1", [RateClaim("limit:k:1:requests", "requests", 5, 60.0, 1)])
        warnings = await run_check("redis memory", redis_memory, given)
        assert [(each.level, each.says.partition(":")[0]) for each in warnings] == [
            ("warn", "redis"),
            ("warn", "limits redis"),
        ]


def test_calls_go_on_and_the_host_stays_ready_while_redis_is_full() -> None:
    board = Board(monotonic=lambda: 0.0)
    board.mark_started("keeper", 1)
    board.heard("keeper", Status())
    assert board.readiness()[1]["status"] == "ok"
    board.heard("keeper", Status(waiting="redis, which is full"))
    ready, body = board.readiness()
    assert (ready, body["status"], body["processes"]["keeper"]["waits_for"]) == (
        True,
        "degraded",
        "redis, which is full",
    )
    board.heard("keeper", Status(failure="the disk is full"))
    assert board.readiness()[1]["status"] == "not ready"
