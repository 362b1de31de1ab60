"""A Redis of its own for limits: what is in which, and what goes on while only one of the two is there."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from gateway.config.settings import Settings
from gateway.doctor.checks import run_check
from gateway.doctor.stores import limits_redis
from gateway.kit.errors import ConfigError, DependencyDown
from gateway.ledger.opening import open_buffer
from gateway.ledger.stream import Depth
from gateway.limits.claims import Slots
from gateway.limits.counters import Limits
from gateway.limits.opening import open_limits
from gateway.stores.redis import open_redis
from tests.support.servers import free_port

SLOTS = [Slots("limit:k:1:running", 1)]


@pytest.fixture
async def own_url(redis_url: str) -> AsyncIterator[str]:
    """Another database than `redis_url`, and than that of the gateway which tests share (whole_gateway.py)."""
    url = redis_url.replace("db=0", "db=2")
    assert url != redis_url
    yield url
    async with open_redis(url) as redis:
        await redis.flushdb()


def settings(main: str, own: str) -> Settings:
    return Settings.of({"REDIS_URL": main, "LIMITS_REDIS_URL": own})


def nobody() -> str:
    return f"redis://127.0.0.1:{free_port()}/0"


async def reserve(limits: Limits, event: str = "1") -> bool:
    (taken,) = await limits.reserve(event, SLOTS)
    return not taken.refused


async def test_counters_are_in_the_one_and_all_else_in_the_other(redis_url: str, own_url: str) -> None:
    async with AsyncExitStack() as stack:
        given = settings(redis_url, own_url)
        buffer = open_buffer(stack, given, redis_url)
        await buffer.append([("1", b"e")])
        await buffer.set_owners(["resp_1"], "user")
        assert await reserve(open_limits(stack, given))
        main, own = [await stack.enter_async_context(open_redis(url)) for url in (redis_url, own_url)]
        assert sorted(await main.keys()) == [b"gateway:usage", b"owner:resp_1"]
        assert await own.keys() == [b"limit:k:1:running"]


async def test_without_the_other_limits_hold(own_url: str) -> None:
    async with AsyncExitStack() as stack:
        main = nobody()
        given = settings(main, own_url)
        limits = open_limits(stack, given)
        assert [await reserve(limits, event) for event in ("1", "2")] == [True, False]
        with pytest.raises(DependencyDown, match=r"^redis:"):
            await open_buffer(stack, given, main).append([("1", b"e")])


async def test_without_the_one_for_limits_events_go_on(redis_url: str) -> None:
    async with AsyncExitStack() as stack:
        given = settings(redis_url, nobody())
        with pytest.raises(DependencyDown, match=r"^limits redis:"):
            await reserve(open_limits(stack, given))
        buffer = open_buffer(stack, given, redis_url)
        await buffer.append([("1", b"e")])
        await buffer.set_owners(["resp_1"], "user")
        assert await buffer.depth() == Depth(1, 0)
        assert await buffer.get_owners(["resp_1"]) == {"resp_1": "user"}
        (away,) = await run_check("limits redis", limits_redis, given)
        assert (away.what, away.level, away.fix) == ("limits redis", "fail", "start it, or correct LIMITS_REDIS_URL")


async def test_a_certificate_that_cannot_be_read_is_named_with_its_setting(redis_url: str) -> None:
    async with AsyncExitStack() as stack:
        with pytest.raises(ConfigError, match=r"^LIMITS_REDIS_URL: ssl_ca_certs=/nope cannot be read"):
            open_limits(stack, settings(redis_url, "rediss://h/0?ssl_ca_certs=/nope"))


async def test_doctor_and_start_look_at_it(redis_url: str, own_url: str) -> None:
    given = settings(redis_url, own_url)
    (there,) = await run_check("limits redis", limits_redis, given)
    assert (there.level, there.says) == ("ok", "noeviction; it has the counters of limits and budgets")
    assert await run_check("limits redis", limits_redis, Settings.of({"REDIS_URL": redis_url})) == []
    async with open_redis(own_url) as redis:
        await redis.config_set("maxmemory", 1)
        try:
            (full,) = await run_check("limits redis", limits_redis, given)
            assert full.says == "it is full, so calls with a hard budget are refused"
            await redis.config_set("maxmemory", 0)
            await redis.config_set("maxmemory-policy", "allkeys-lru")
            async with AsyncExitStack() as stack:
                with pytest.raises(ConfigError, match=r"what budgets have spent.*LIMITS_REDIS_URL"):
                    await open_limits(stack, given).check_policy()
        finally:
            await redis.config_set("maxmemory", 0)
            await redis.config_set("maxmemory-policy", "noeviction")
