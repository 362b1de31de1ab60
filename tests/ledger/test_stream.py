"""The stream on a real Valkey: nothing read is lost, nothing unread is trimmed, every failure has one name."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from redis.asyncio import Redis

from gateway.config.settings import Settings
from gateway.kit.errors import ConfigError, DependencyDown
from gateway.ledger.opening import open_buffer
from gateway.ledger.stream import GROUP, OWNER_TTL_S, Buffer, Depth
from gateway.stores.redis import open_redis
from tests.support.servers import free_port

STREAM = "gateway:usage"


@pytest.fixture
async def redis(redis_url: str) -> "AsyncIterator[Redis]":
    client = open_redis(redis_url)
    yield client
    await client.config_set("maxmemory", "0")
    await client.config_set("maxmemory-policy", "noeviction")
    await client.aclose()


async def test_entries_come_as_they_went(buffer: Buffer) -> None:
    sent = [(f"id-{i}", bytes([i, 0, 255]) * i) for i in range(20)]
    stream_ids = await buffer.append(sent)
    read = await buffer.read("a", 100, 0)
    assert [(entry.event_id, entry.raw) for entry in read] == sent
    assert [entry.stream_id for entry in read] == stream_ids
    assert await buffer.append([]) == []


async def test_a_long_append_keeps_its_order(buffer: Buffer) -> None:
    sent = [(str(i), b"x") for i in range(2500)]
    assert len(await buffer.append(sent)) == 2500
    read = await buffer.read("a", 5000, 0)
    assert [entry.event_id for entry in read] == [event_id for event_id, _ in sent]
    await buffer.ack([entry.stream_id for entry in read])
    assert await buffer.depth() == Depth(0, 0)


async def test_what_is_read_stays_until_it_is_acknowledged(buffer: Buffer) -> None:
    ids = await buffer.append([("1", b"a"), ("2", b"b"), ("3", b"c")])
    first = await buffer.read("a", 2, 0)
    assert await buffer.depth() == Depth(3, 2)
    assert [entry.event_id for entry in await buffer.read("b", 2, 0)] == ["3"]
    await buffer.ack([first[0].stream_id])
    assert await buffer.depth() == Depth(2, 2)
    assert await buffer.waiting([*ids, b"1-1"]) == set(ids[1:])
    assert await buffer.waiting([]) == set()
    await buffer.ack([first[0].stream_id])  # a second time is harmless
    await buffer.ack([])


async def test_what_a_deleted_writer_held_waits_for_nobody(buffer: Buffer, redis: "Redis") -> None:
    ids = await buffer.append([("1", b"a"), ("2", b"b"), ("3", b"c"), ("4", b"d")])
    await buffer.read("gone", 2, 0)
    await buffer.read("there", 1, 0)
    assert await buffer.waiting(ids) == set(ids)
    await redis.xgroup_delconsumer(STREAM, GROUP, "gone")
    assert await buffer.waiting(ids) == set(ids[2:])
    assert await buffer.depth() == Depth(2, 1)  # the other two are gone: whoever asked sends them again


async def test_read_waits_for_a_first_entry(buffer: Buffer) -> None:
    waiting = asyncio.create_task(buffer.read("a", 10, 4000))
    await asyncio.sleep(0)
    await buffer.append([("1", b"a")])
    assert [entry.event_id for entry in await waiting] == ["1"]
    assert await buffer.read("a", 10, 1) == []


async def test_another_writer_takes_over(buffer: Buffer) -> None:
    ids = await buffer.append([(str(i), b"a") for i in range(30)])
    await buffer.read("dead", 30, 0)
    assert await buffer.claim("b", 60_000, 10) == []
    assert [entry.stream_id for entry in await buffer.claim("b", 0, 10)] == ids[:10]
    assert [entry.stream_id for entry in await buffer.claim("b", 0, 100)] == ids


async def test_taking_over_skips_what_was_deleted(buffer: Buffer, redis: "Redis") -> None:
    ids = await buffer.append([(str(i), b"a") for i in range(5)])
    await buffer.read("dead", 5, 0)
    await redis.xdel(STREAM, *ids[:3])
    assert [entry.event_id for entry in await buffer.claim("b", 0, 100)] == ["3", "4"]


async def test_old_entries_are_found_behind_many_fresh_ones(buffer: Buffer, redis: "Redis") -> None:
    ids = await buffer.append([(str(i), b"a") for i in range(300)])
    await buffer.read("alive", 300, 0)
    await redis.xclaim(STREAM, GROUP, "dead", 0, [ids[-1]], idle=3_600_000)
    assert [entry.event_id for entry in await buffer.claim("b", 60_000, 2)] == ["299"]


async def test_the_group_comes_back_and_sees_the_backlog(buffer: Buffer, redis: "Redis") -> None:
    await redis.flushall()
    await buffer.append([("1", b"a")])
    assert [entry.event_id for entry in await buffer.read("a", 10, 0)] == ["1"]
    await redis.xgroup_destroy(STREAM, GROUP)
    assert [entry.event_id for entry in await buffer.read("a", 10, 0)] == ["1"]
    await redis.flushall()
    assert await buffer.claim("a", 0, 10) == []
    await redis.flushall()
    assert await buffer.depth() == Depth(0, 0)
    await buffer.ensure_group()


async def test_a_stranger_s_entry_is_read_and_not_dropped(buffer: Buffer, redis: "Redis") -> None:
    await redis.xadd(STREAM, {"foo": b"\xff", "bar": "1"})
    (entry,) = await buffer.read("a", 10, 0)
    assert (entry.event_id, entry.raw) == ("", b"foo=\xff\nbar=1")


async def test_a_writer_leaves_only_when_it_holds_nothing(buffer: Buffer, redis: "Redis") -> None:
    (stream_id,) = await buffer.append([("1", b"a")])
    await buffer.read("a", 10, 0)
    await buffer.forget_consumer("a")
    assert (await buffer.depth()).unacknowledged == 1
    await buffer.ack([stream_id])
    await buffer.forget_consumer("a")
    assert await redis.xinfo_consumers(STREAM, GROUP) == []


async def test_only_noeviction_will_do(buffer: Buffer, redis: "Redis") -> None:
    await buffer.check_policy()
    for policy in ("allkeys-lru", "volatile-ttl"):
        await redis.config_set("maxmemory-policy", policy)
        with pytest.raises(ConfigError, match=f"{policy}.*noeviction"):
            await buffer.check_policy()


async def test_a_full_server_refuses_new_entries_and_still_lets_old_ones_go(buffer: Buffer, redis: "Redis") -> None:
    ids = await buffer.append([("1", b"a"), ("2", b"b")])
    await buffer.read("a", 1, 0)
    await redis.config_set("maxmemory", "1")
    with pytest.raises(DependencyDown, match=r"^redis: command not allowed when used memory"):
        await buffer.append([("3", b"c")])
    assert [entry.event_id for entry in await buffer.read("a", 10, 0)] == ["2"]
    await buffer.ack(ids)
    await redis.config_set("maxmemory", "0")
    assert await buffer.depth() == Depth(0, 0)


async def test_owners_are_remembered_for_a_while(buffer: Buffer, redis: "Redis") -> None:
    await buffer.set_owners(["resp_1", "msg_1"], "user")
    await buffer.set_owners(["msg_2"], "other")
    found = await buffer.get_owners(["msg_2", "resp_1", "resp_2", "msg_1"])
    assert found == {"msg_2": "other", "resp_1": "user", "msg_1": "user"}
    await buffer.forget_owners({"msg_1": "user", "msg_2": "user", "msg_3": "user"})
    assert await buffer.get_owners(["msg_1", "msg_2", "resp_1"]) == {"resp_1": "user", "msg_2": "other"}
    assert 3500 < await redis.ttl("owner:resp_1") <= 3600
    await buffer.keep_owners(["resp_1", "resp_2"])
    assert 29 * 86_400 < await redis.ttl("owner:resp_1") <= 30 * 86_400
    assert await buffer.get_owners(["resp_2"]) == {}
    await Buffer(redis, stream=STREAM, owner_ttl_s=7).set_owners(["resp_1"], "user")
    assert 0 < await redis.ttl("owner:resp_1") <= 7


@pytest.mark.parametrize(("total_s", "open_max_s", "wanted"), [(3600, 4000, OWNER_TTL_S), (7200, 7300.5, 7301)])
async def test_owners_stay_for_as_long_as_a_call_may_last(
    redis: "Redis", redis_url: str, total_s: float, open_max_s: float, wanted: int
) -> None:
    bounds = {"UPSTREAM__TOTAL_S": str(total_s), "JOURNAL__OPEN_MAX_S": str(open_max_s)}
    async with AsyncExitStack() as stack:
        buffer = open_buffer(stack, Settings.of({"REDIS_URL": redis_url, **bounds}), redis_url)
        await buffer.set_owners(["resp_1"], "user")
        assert wanted - 60 < await redis.ttl("owner:resp_1") <= wanted


async def test_nobody_there_is_an_outage() -> None:
    redis = open_redis(f"redis://127.0.0.1:{free_port()}/0")
    buffer = Buffer(redis, stream=STREAM)
    for asked in (
        buffer.check_policy(),
        buffer.append([("1", b"a")]),
        buffer.ensure_group(),
        buffer.read("a", 1, 10),
        buffer.claim("a", 0, 1),
        buffer.ack([b"1-1"]),
        buffer.depth(),
        buffer.waiting([b"1-1"]),
        buffer.set_owners(["r"], "u"),
        buffer.get_owners(["r"]),
        buffer.forget_owners({"r": "u"}),
        buffer.keep_owners(["r"]),
        buffer.tell_behind(),
        buffer.is_behind(),
    ):
        with pytest.raises(DependencyDown, match="redis"):
            await asked
    await redis.aclose()


async def test_a_silent_server_is_an_outage() -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    redis = open_redis(f"redis://127.0.0.1:{port}/0", timeout_s=0.1)
    with pytest.raises(DependencyDown, match=r"redis: .*[Tt]imeout"):
        await Buffer(redis, stream=STREAM).append([("1", b"a")])
    await redis.aclose()
    server.close()
    await server.wait_closed()
