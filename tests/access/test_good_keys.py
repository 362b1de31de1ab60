"""A flood of unknown keys locks out no customer whose key has been good, also after a restart and at another proxy."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final
from uuid import uuid4

import aiohttp
import pytest
from redis.asyncio import Redis

from gateway.access.good_keys import MAC_BYTES, NAME, RENEWED_S, GoodKeys
from gateway.config.key_ring import KeyRing, entry_of
from gateway.embedded import Embedded
from gateway.kit.errors import DependencyDown
from gateway.stores.redis import open_redis
from tests.access.admissions import KEY, NOW_S, AdmissionFakes, no
from tests.support.gateway import Stack, stack
from tests.support.servers import free_port

BALANCER: Final = "192.0.2.1"
OLD: Final = KeyRing({"old": b"o" * 32})
BOTH: Final = KeyRing({"new": b"n" * 32, "old": b"o" * 32})
OTHER: Final = KeyRing({"other": b"x" * 32})


@pytest.fixture
async def redis(redis_url: str) -> "AsyncIterator[Redis]":
    client = open_redis(redis_url)
    yield client
    await client.aclose()


class Clock:
    """Unix time."""

    now_s = NOW_S

    def __call__(self) -> float:
        return self.now_s


async def good_keys(
    redis: "Redis", ring: KeyRing = OLD, *, clock: Callable[[], float] = lambda: NOW_S, keys_max: int = 100
) -> GoodKeys:
    """As a proxy has them when it has started."""
    made = GoodKeys(redis, ring, remember_s=10 * RENEWED_S, keys_max=keys_max, unix_s=clock)
    await made.exchange()
    return made


async def flood(fakes: AdmissionFakes) -> None:
    """Unknown keys from the address that everybody comes from, until it may ask no more."""
    answer, fakes.keys.answer = fakes.keys.answer, no("NOT_FOUND")
    statuses = [(await fakes.refused(f"junk-{number}", peer=BALANCER)).status for number in range(20)]
    assert statuses[-1] == 429
    fakes.keys.answer = answer


async def test_without_what_redis_remembers_everybody_is_locked_out() -> None:
    """What happens without GATEWAY_SECRETS; the test of the tests below."""
    fakes = AdmissionFakes(misses_per_minute=10)
    await flood(fakes)
    assert (await fakes.refused(peer=BALANCER)).status == 429


async def test_a_key_that_was_good_before_the_restart_gets_in(redis: "Redis") -> None:
    before = AdmissionFakes(good_keys=(known := await good_keys(redis)), misses_per_minute=10)
    await before.admit(peer=BALANCER)
    await known.exchange()
    after = AdmissionFakes(good_keys=await good_keys(redis), misses_per_minute=10)
    await flood(after)
    await after.admit(peer=BALANCER)
    assert (await after.refused("never-seen", peer=BALANCER)).status == 429


async def test_two_proxies_know_each_others(redis: "Redis") -> None:
    mine, theirs = await good_keys(redis), await good_keys(redis)
    one, other = (AdmissionFakes(good_keys=known, misses_per_minute=10) for known in (mine, theirs))
    await flood(other)
    await one.admit(peer=BALANCER)
    await mine.exchange()
    assert (await other.refused(peer=BALANCER)).status == 429
    await theirs.exchange()
    await other.admit(peer=BALANCER)


async def test_unkey_is_asked_all_the_same_and_a_key_that_has_ended_is_a_stranger_again(redis: "Redis") -> None:
    known = await good_keys(redis)
    await AdmissionFakes(good_keys=known).admit(peer=BALANCER)
    await known.exchange()
    fakes = AdmissionFakes(good_keys=known, misses_per_minute=10)
    fakes.keys.answer = no("DISABLED")
    assert (await fakes.refused(peer=BALANCER)).status == 401
    assert fakes.keys.asked == [KEY]
    assert not known.has(KEY)
    await known.exchange()
    assert not (await good_keys(redis)).has(KEY)
    await flood(fakes)
    fakes.now_s = 11  # the refusal is no longer remembered
    assert (await fakes.refused(peer=BALANCER)).status == 429


async def test_redis_has_no_key_and_nothing_that_another_secret_reads(redis: "Redis") -> None:
    known = await good_keys(redis)
    known.remember(KEY)
    await known.exchange()
    (mac,) = await redis.zrange(NAME, 0, -1)
    assert len(mac) == MAC_BYTES
    assert KEY.encode() not in mac
    assert 0 < await redis.ttl(NAME) <= 10 * RENEWED_S
    assert not (await good_keys(redis, OTHER)).has(KEY)


async def test_secrets_are_changed_without_forgetting(redis: "Redis") -> None:
    before = await good_keys(redis)
    before.remember(KEY)
    await before.exchange()
    after = await good_keys(redis, BOTH)
    assert after.has(KEY)
    after.remember(KEY)
    await after.exchange()
    assert (await good_keys(redis, KeyRing({"new": b"n" * 32}))).has(KEY)
    after.forget(KEY)
    await after.exchange()
    assert await redis.zcard(NAME) == 0


async def test_a_key_that_is_used_stays_and_one_that_is_not_goes(redis: "Redis") -> None:
    clock = Clock()
    known = await good_keys(redis, clock=clock)
    for key in ("used", "unused"):
        known.remember(key)
    for _ in range(6):
        clock.now_s += 2 * RENEWED_S
        known.remember("used")
        await known.exchange()
    assert (known.has("used"), known.has("unused")) == (True, False)
    fresh = await good_keys(redis, clock=clock)
    assert (fresh.has("used"), fresh.has("unused")) == (True, False)


async def test_there_are_never_more_than_so_many(redis: "Redis") -> None:
    clock = Clock()
    known = await good_keys(redis, clock=clock, keys_max=10)
    for number in range(30):
        clock.now_s += 1
        known.remember(f"key-{number}")
        if number % 7 == 0:
            await known.exchange()
    await known.exchange()
    assert await redis.zcard(NAME) == 10
    for each in (known, await good_keys(redis, clock=clock, keys_max=10)):
        assert [number for number in range(30) if each.has(f"key-{number}")] == list(range(20, 30))


async def test_what_redis_did_not_hear_is_told_again(redis: "Redis") -> None:
    away = open_redis(f"redis://127.0.0.1:{free_port()}/0")
    known = GoodKeys(away, OLD, remember_s=10 * RENEWED_S, keys_max=10, unix_s=Clock())
    known.remember(KEY)
    with pytest.raises(DependencyDown):
        await known.exchange()
    assert known.has(KEY)
    known._redis = redis  # type: ignore[misc]  # it is back
    await known.exchange()
    await away.aclose()
    assert (await good_keys(redis)).has(KEY)


async def test_a_key_that_cannot_be_ours_is_neither_asked_about_nor_counted() -> None:
    fakes = AdmissionFakes(misses_per_minute=10, prefixes=("app_", "key_"))
    for number in range(1000):
        assert (await fakes.refused(f"junk-{number}", peer=BALANCER)).status == 401
    assert not fakes.keys.asked
    await fakes.admit(KEY, peer=BALANCER)


async def test_an_ipv6_client_is_its_64() -> None:
    fakes = AdmissionFakes(misses_per_minute=10)
    fakes.keys.answer = no("NOT_FOUND")
    statuses = [(await fakes.refused(f"junk-{n}", peer=f"2001:db8:1:2::{n:x}")).status for n in range(12)]
    assert statuses == [401] * 10 + [429] * 2
    assert (await fakes.refused("junk", peer="2001:db8:1:3::1")).status == 401


@pytest.fixture
def behind_a_balancer(
    embedded: Embedded, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    environ = {
        "FLUSH__STREAM": f"usage-{uuid4().hex}",
        "KEYS__MISSES_PER_MINUTE": "5",
        "GATEWAY_SECRETS": entry_of("one", uuid4().bytes * 2),
        "CONNECTIONS__TRUSTED_PROXIES": "127.0.0.1",
    }
    with stack(tmp_path_factory.mktemp("balanced"), database_url, embedded.redis_url, **environ) as made:
        yield made


async def post(running: Stack, key: str, *, forwarded: str = "") -> int:
    """One call; its status."""
    headers = {"Authorization": f"Bearer {key}", **({"X-Forwarded-For": forwarded} if forwarded else {})}
    body = {"model": "text-embedding-3-small", "input": "Hello"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{running.base_url}/embeddings", json=body, headers=headers) as answer,
    ):
        await answer.read()
        return answer.status


@pytest.mark.long
async def test_a_whole_gateway_after_a_restart_under_a_flood(behind_a_balancer: Stack) -> None:
    running = behind_a_balancer
    running.start()
    assert await post(running, running.key) == 200
    running.serve.stop()
    running.serve = running.run("serve")
    running.serve.wait_for("serving http")
    statuses = [await post(running, f"junk-{number}") for number in range(10)]
    assert statuses == [401] * 5 + [429] * 5
    never_seen = running.make_key("second@example.com")["key"]
    assert await post(running, never_seen) == 429
    assert await post(running, never_seen, forwarded="198.51.100.7") == 200  # the balancer tells them apart
    assert await post(running, running.key) == 200
