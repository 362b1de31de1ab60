"""Connections to Redis that work and are wrong: the client lets go of them by itself, all at once."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from gateway.kit.errors import DependencyDown
from gateway.ledger.stream import Buffer
from gateway.limits.claims import Slots
from gateway.limits.counters import Limits
from gateway.stores.redis import open_redis
from tests.chaos.stores import Store
from tests.chaos.tcp import Link

STREAM = "failed-over"
WAIT_S = 30.0
FORGOTTEN_S = 4.0
"""What the client waits for an answer that never comes; a busy machine answers within it."""


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Store]]:
    """The master of yesterday and the one of today."""
    folders = [tmp_path_factory.mktemp(name) for name in ("old", "new")]
    for folder in folders:
        folder.chmod(0o711)
    made = [Store(folder, "valkey") for folder in folders]
    yield made[0], made[1]
    for store in made:
        store.stop()


@pytest.fixture
async def old(stores: tuple[Store, Store]) -> AsyncIterator[Any]:
    """Yesterday's, a master again afterwards."""
    redis: Any = open_redis(stores[0].url)
    async with redis:
        yield redis
        await redis.config_set("replica-serve-stale-data", "yes")
        await redis.execute_command("REPLICAOF", "NO", "ONE")


@pytest.fixture
async def link(stores: tuple[Store, Store]) -> AsyncIterator[Link]:
    """Leads to yesterday's."""
    async with Link(stores[0].socket).running() as made:
        yield made


@pytest.fixture
async def redis(link: Link) -> AsyncIterator[Any]:
    async with open_redis(f"redis://127.0.0.1:{link.port}/0", timeout_s=WAIT_S, connections_max=4) as opened:
        await asyncio.gather(*(opened.blpop(["nothing"], timeout=0.2) for _ in range(3)))
        assert link.connections == 3
        yield opened


async def fail_over(old: Any, link: Link, stores: tuple[Store, Store]) -> None:
    """Yesterday's becomes a replica (of nobody who answers) and keeps its clients; the address leads to today's."""
    await old.execute_command("REPLICAOF", "127.0.0.1", "1")
    link.lead_to(stores[1].socket)


async def test_a_master_that_became_a_replica(redis: Any, old: Any, link: Link, stores: tuple[Store, Store]) -> None:
    buffer = Buffer(redis, stream=STREAM)
    await fail_over(old, link, stores)
    with pytest.raises(DependencyDown, match="read only replica"):
        await buffer.append([("1", b"e")])
    # All connections at once, not each in its turn.
    await asyncio.gather(*(buffer.append([(str(i), b"e")]) for i in range(3)))
    async with open_redis(stores[1].url) as new:
        assert await new.xlen(STREAM) == 3
        await new.delete(STREAM)


async def test_limits_too(redis: Any, old: Any, link: Link, stores: tuple[Store, Store]) -> None:
    limits, slots = Limits(redis, hold_s=60), [Slots("limit:c", 5)]
    await limits.reserve("1", slots)
    await fail_over(old, link, stores)
    with pytest.raises(DependencyDown, match="read only replica"):
        await limits.reserve("2", slots)
    (taken,) = await limits.reserve("3", slots)
    assert not taken.refused
    async with open_redis(stores[1].url) as new:
        assert await new.exists("limit:c")
        await new.flushdb()


async def test_a_replica_without_its_master(redis: Any, old: Any, link: Link, stores: tuple[Store, Store]) -> None:
    buffer = Buffer(redis, stream=STREAM)
    await old.config_set("replica-serve-stale-data", "no")
    await fail_over(old, link, stores)
    with pytest.raises(DependencyDown, match="MASTER is down"):
        await buffer.get_owners(["resp_1"])
    assert await asyncio.gather(*(buffer.get_owners(["resp_1"]) for _ in range(3))) == [{}] * 3


async def test_a_read_that_waited_through_it(redis: Any, old: Any, link: Link, stores: tuple[Store, Store]) -> None:
    buffer = Buffer(redis, stream=STREAM)
    await buffer.ensure_group()
    waiting = asyncio.create_task(buffer.read("w", 10, block_ms=int(WAIT_S * 500)))
    while not any("b" in client["flags"] for client in await old.client_list()):
        await asyncio.sleep(0.01)
    await fail_over(old, link, stores)
    with pytest.raises(DependencyDown, match="UNBLOCKED"):
        await waiting
    assert await buffer.append([("1", b"e")]) != []
    async with open_redis(stores[1].url) as new:
        assert await new.xlen(STREAM) == 1
        await new.delete(STREAM)


async def test_a_server_that_is_loading(redis: Any, link: Link, stores: tuple[Store, Store]) -> None:
    """Its answer is that of a Redis that reads its file."""

    async def loading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            writer.write(b"-LOADING Redis is loading the dataset in memory\r\n")
        writer.close()

    buffer = Buffer(redis, stream=STREAM)
    server = await asyncio.start_server(loading, "127.0.0.1", 0)
    async with server:
        link.lead_to(server.sockets[0].getsockname()[:2])
        link.set("cut")
        link.set("pass")
        with pytest.raises(DependencyDown):
            await asyncio.gather(*(buffer.depth() for _ in range(3)))
        link.lead_to(stores[1].socket)
        assert (await buffer.depth()).entries == 0


async def test_one_that_was_forgotten_takes_the_others_with_it(link: Link, stores: tuple[Store, Store]) -> None:
    async with open_redis(f"redis://127.0.0.1:{link.port}/0", timeout_s=FORGOTTEN_S, connections_max=4) as redis:
        await asyncio.gather(*(redis.blpop(["nothing"], timeout=0.2) for _ in range(3)))
        assert link.connections == 3
        buffer = Buffer(redis, stream=STREAM)
        link.forget()
        with pytest.raises(DependencyDown, match="Timeout"):
            await buffer.get_owners(["resp_1"])
        for _ in range(3):
            assert await buffer.get_owners(["resp_1"]) == {}
