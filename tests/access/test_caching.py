"""How long an answer of Unkey holds, through renewals and outages, and how many ask at once."""

import asyncio

import pytest

from gateway.access.admission import Principal
from gateway.keys.verify import Verification
from gateway.kit.errors import ApiError, DependencyDown
from tests.access.admissions import KEY, NOW_S, POSTGRES_DOWN, UNKEY_DOWN, House, no, valid

# Windows.


async def test_fresh_keys_are_not_asked_for() -> None:
    house = House(fresh_s=30)
    for second in range(24):
        house.now_s = second
        await house.admit()
    assert house.keys.asked == [KEY]


async def test_renewed_in_the_background() -> None:
    house = House(fresh_s=30)
    await house.admit()
    house.now_s = 25
    house.keys.gate.clear()
    await house.admit()  # does not wait
    await house.admit()
    assert len(house.keys.asked) == 2
    house.keys.gate.set()
    for _ in range(5):
        await asyncio.sleep(0)
    house.now_s = 31  # within the fresh time of the renewal
    await house.admit()
    assert len(house.keys.asked) == 2


async def test_a_refusal_in_a_background_renewal_counts() -> None:
    house = House(fresh_s=30)
    await house.admit()
    house.now_s, house.keys.answer = 25, no("DISABLED")
    await house.admit()
    assert (await house.refused()).status == 401


async def test_outage_with_a_known_key() -> None:
    house = House(fresh_s=30, stale_s=600)
    await house.admit()
    house.keys.answer = UNKEY_DOWN
    for second in range(20, 630):
        house.now_s = second
        await house.admit()
    assert len(house.keys.asked) <= 1 + 610 / 2 + 1  # one question every RETRY_S, not one per call
    house.now_s = 630
    error = await house.refused()
    assert (error.status, error.code, error.headers) == (503, "key_verification_unavailable", {"Retry-After": "2"})
    house.keys.answer = valid()
    house.now_s += house.open_s
    await house.admit()


async def test_strict_has_no_stale_time() -> None:
    house = House(fresh_s=30, stale_s=0)
    await house.admit()
    house.keys.answer = UNKEY_DOWN
    house.now_s = 29.9
    await house.admit()
    house.now_s = 30
    assert (await house.refused()).status == 503


async def test_outage_with_an_unknown_key_is_503_and_not_remembered() -> None:
    house = House()
    house.keys.answer = UNKEY_DOWN
    assert (await house.refused()).status == 503
    house.keys.answer = valid()
    await house.admit()


async def test_postgres_away() -> None:
    house = House(fresh_s=30, stale_s=600)
    await house.admit()
    house.accounts.answer = POSTGRES_DOWN
    assert (await house.refused("unknown")).status == 503
    for second in range(0, 2000, 10):  # an answering Unkey is enough to renew a known identity
        house.now_s = second
        assert await house.admit() == Principal("user", "api-key", "uk_1")
    house.keys.answer = valid(key_id="uk_2")  # the same text is another key now
    house.now_s += 700
    assert (await house.refused()).status == 503


async def test_postgres_away_does_not_revive_a_revoked_key() -> None:
    house = House(fresh_s=30)
    await house.admit()
    house.accounts.answer, house.keys.answer, house.now_s = POSTGRES_DOWN, no("NOT_FOUND"), 31
    assert (await house.refused()).status == 401


async def test_expiry() -> None:
    house = House(fresh_s=30, stale_s=600)
    house.keys.answer = valid(expires=int(NOW_S + 10) * 1000)
    await house.admit()
    house.now_s, house.keys.answer = 9.9, UNKEY_DOWN
    await house.admit()
    house.now_s = 10
    assert (await house.refused()).status == 503  # past its end no stale time helps
    house.keys.answer = no("EXPIRED")
    assert (await house.refused()).status == 401
    house.now_s, house.keys.answer = 40, valid(expires=int(NOW_S + 1000) * 1000)
    await house.admit()  # it was extended


async def test_an_extended_key_comes_back_at_once() -> None:
    house = House()
    house.keys.answer = valid(expires=int(NOW_S + 10) * 1000)
    await house.admit()
    house.now_s, house.keys.answer = 11, valid(expires=int(NOW_S + 1000) * 1000)
    await house.admit()


# Many callers.


async def test_single_flight() -> None:
    house = House()
    house.keys.gate.clear()
    callers = [asyncio.create_task(house.admission.admit(KEY)) for _ in range(500)]
    await asyncio.sleep(0)
    for caller in callers[:100]:
        caller.cancel()  # those who leave do not take the answer with them
    house.keys.gate.set()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert results[100:] == [Principal("user", "api-key", "uk_1")] * 400
    assert len(house.keys.asked) == len(house.accounts.asked) == 1


@pytest.mark.parametrize(("answer", "status"), [(UNKEY_DOWN, 503), (no("NOT_FOUND"), 401)])
async def test_single_flight_of_a_failure(answer: Verification | DependencyDown, status: int) -> None:
    house = House()
    house.keys.gate.clear()
    house.keys.answer = answer
    callers = [asyncio.create_task(house.admission.admit(KEY)) for _ in range(50)]
    await asyncio.sleep(0)
    house.keys.gate.set()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert {result.status for result in results if isinstance(result, ApiError)} == {status}
    assert len(results) == 50
    assert len(house.keys.asked) == 1


async def test_negative_cache() -> None:
    house = House(negative_s=10, negative_max=3)
    house.keys.answer = no("NOT_FOUND")
    await house.refused("bad")
    house.now_s = 9.9
    await house.refused("bad")
    assert house.keys.asked == ["bad"]
    house.now_s = 10
    await house.refused("bad")
    assert house.keys.asked == ["bad"] * 2
    for number in range(50):
        await house.refused(f"random-{number}")
    assert len(house.admission._refused) == 3
    assert len(house.admission._asking) == 0
    await house.refused("bad")
    assert house.keys.asked[-1] == "bad"


async def test_known_keys_are_bounded_and_never_kept_as_text() -> None:
    house = House(cache_max=4)
    for number in range(20):
        await house.admit(f"key-{number}")
    assert len(house.admission._known) == 4
    assert all(len(digest) == 32 and b"key" not in digest for digest in house.admission._known)
    await house.admit("key-19")
    assert len(house.keys.asked) == 20


@pytest.mark.parametrize("key", ["", "k" * 513])
async def test_no_key_is_not_asked_about(key: str) -> None:
    house = House()
    assert (await house.refused(key)).status == 401
    assert house.keys.asked == []
    await house.admit("k" * 512)


async def test_keys_differ_in_every_character() -> None:
    house = House()
    await house.admit(KEY)
    house.keys.answer = no("NOT_FOUND")
    for other in (KEY.upper(), KEY[:-1], KEY + "1", KEY + "\u00e9"):
        assert (await house.refused(other)).status == 401
