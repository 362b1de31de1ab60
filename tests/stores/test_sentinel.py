"""Redis behind Sentinels: two real servers and three real Sentinels, with passwords for both."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from random import uniform
from typing import Any

import pytest

from gateway.accounts.key_changes import KeyChanges
from gateway.kit.errors import DependencyDown, DependencyRefused
from gateway.kit.loops import Loops
from gateway.ledger.stream import Buffer
from gateway.limits.claims import Slots
from gateway.limits.counters import Limits
from gateway.stores.redis import open_redis
from tests.doctor.doctors import found, says, settings
from tests.support.patience import until
from tests.support.redis_pair import SERVICE, RedisPair, Valkey, redis_pair

PASSWORD, OWN = "of-the-master", "of-the-sentinels"
HEALS_S = 2.0
"""Seconds from the Sentinels' decision to the next pass that succeeds."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisPair]:
    with redis_pair(
        tmp_path_factory.mktemp("pair") / "servers", sentinels=3, password=PASSWORD, sentinel_password=OWN
    ) as made:
        yield made


@pytest.fixture
async def redis(pair: RedisPair) -> AsyncIterator[Any]:
    async with open_redis(pair.sentinel_url, timeout_s=2) as opened:
        yield opened


@pytest.mark.long
async def test_what_is_wrong_is_said(pair: RedisPair) -> None:
    async def refusal(url: str) -> DependencyDown:
        async with open_redis(url) as opened:
            with pytest.raises(DependencyDown) as refused:
                await Buffer(opened, stream="usage").depth()
        assert PASSWORD not in str(refused.value)
        assert OWN not in str(refused.value)
        return refused.value

    for other in ("?sentinel_password=wrong", ""):
        wrong = await refusal(pair.sentinel_url.partition("?")[0] + other)
        assert isinstance(wrong, DependencyRefused)
        assert "correct sentinel_username and sentinel_password" in wrong.detail
    assert isinstance(await refusal(pair.sentinel_url.replace(PASSWORD, "wrong")), DependencyRefused)
    assert "names a master another" in (await refusal(pair.sentinel_url.replace(SERVICE, "another"))).detail
    nowhere = await refusal(f"redis+sentinel://127.0.0.1:1,127.0.0.1:2/{SERVICE}")
    assert "none of 2 Sentinel(s) names a master" in nowhere.detail


@pytest.mark.long
async def test_one_sentinel_that_answers_is_enough(pair: RedisPair) -> None:
    async with open_redis(pair.sentinel_url.replace("@", "@127.0.0.1:1,127.0.0.1:2,")) as opened:
        assert await opened.ping()
    seen = says(await found("redis", settings(redis_url=pair.sentinel_url)))
    assert [level for level, _ in seen if level == "fail"] == []


@pytest.mark.long
@pytest.mark.parametrize("how", ["dies", "hangs"])
async def test_a_master_that_is_gone_is_followed(pair: RedisPair, redis: Any, how: str) -> None:
    """All kinds of connections: commands, scripts, and a read that waits. Then its own return, as a replica."""
    await asyncio.to_thread(pair.heal)
    old, new = pair.master, pair.replica
    buffer, limits, changes = Buffer(redis, stream="usage"), Limits(redis, hold_s=60), KeyChanges(redis)
    passed_s: dict[str, float] = {}
    loops = Loops(uniform=uniform)

    async def add() -> None:
        await buffer.append([("1", b"e")])
        passed_s["add"] = time.monotonic()

    async def limit() -> None:
        await limits.reserve("1", [Slots("limit:c", 5)])
        passed_s["limit"] = time.monotonic()

    async def follow() -> None:
        await changes.confirm("proxy", await changes.read(b"0-0", wait_s=0.1))
        passed_s["follow"] = time.monotonic()

    for name, step in (("add", add), ("limit", limit), ("follow", follow)):
        loops.every(name, step, every_s=0.05)
    async with loops:
        await until(lambda: len(passed_s) == len(loops._loops))
        old.die() if how == "dies" else old.hang()
        await until(lambda: loops.waiting_on)
        await until_named(pair, new)
        since_s = time.monotonic()
        await until(lambda: all(at > since_s for at in passed_s.values()) and not loops.waiting_on)
        took_s = time.monotonic() - since_s
        if how == "hangs":
            old.go_on()
        await asyncio.to_thread(pair.heal)
        begun_s = time.monotonic()
        await until(lambda: all(at > begun_s for at in passed_s.values()))
    assert pair.master is new
    # A silent server costs whoever has just asked it the two seconds of a time-out.
    assert took_s < HEALS_S + (2 if how == "hangs" else 0)


async def until_named(pair: RedisPair, server: Valkey) -> None:
    """Until every Sentinel names this one."""
    for sentinel in pair.sentinels:
        asking = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        while (await asyncio.to_thread(sentinel.ask, *asking))[1] != str(server.port):
            await asyncio.sleep(0.05)
