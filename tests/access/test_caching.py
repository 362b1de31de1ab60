"""How long an answer of Unkey holds, through renewals and outages, and how many ask at once."""

import asyncio

import pytest

from gateway.access.admission import Principal
from gateway.keys.verify import Verification
from gateway.kit.errors import ApiError, DependencyDown
from tests.access.admissions import KEY, NOW_S, POSTGRES_DOWN, UNKEY_DOWN, AdmissionFakes, no, valid

# Windows.


async def test_fresh_keys_are_not_asked_for() -> None:
    fakes = AdmissionFakes(fresh_s=30)
    for second in range(24):
        fakes.now_s = second
        await fakes.admit()
    assert fakes.keys.asked == [KEY]


async def test_renewed_in_the_background() -> None:
    fakes = AdmissionFakes(fresh_s=30)
    await fakes.admit()
    fakes.now_s = 25
    fakes.keys.gate.clear()
    await fakes.admit()  # does not wait
    await fakes.admit()
    assert len(fakes.keys.asked) == 2
    fakes.keys.gate.set()
    for _ in range(5):
        await asyncio.sleep(0)
    fakes.now_s = 31  # within the fresh time of the renewal
    await fakes.admit()
    assert len(fakes.keys.asked) == 2


async def test_a_refusal_in_a_background_renewal_counts() -> None:
    fakes = AdmissionFakes(fresh_s=30)
    await fakes.admit()
    fakes.now_s, fakes.keys.answer = 25, no("DISABLED")
    await fakes.admit()
    assert (await fakes.refused()).status == 401


async def test_outage_with_a_known_key() -> None:
    fakes = AdmissionFakes(fresh_s=30, stale_s=600)
    await fakes.admit()
    fakes.keys.answer = UNKEY_DOWN
    for second in range(20, 630):
        fakes.now_s = second
        await fakes.admit()
    assert len(fakes.keys.asked) <= 1 + 610 / 2 + 1  # one question every RETRY_S, not one per call
    fakes.now_s = 630
    error = await fakes.refused()
    assert (error.status, error.code, error.headers) == (503, "key_verification_unavailable", {"Retry-After": "2"})
    fakes.keys.answer = valid()
    fakes.now_s += fakes.open_s
    await fakes.admit()


async def test_strict_has_no_stale_time() -> None:
    fakes = AdmissionFakes(fresh_s=30, stale_s=0)
    await fakes.admit()
    fakes.keys.answer = UNKEY_DOWN
    fakes.now_s = 29.9
    await fakes.admit()
    fakes.now_s = 30
    assert (await fakes.refused()).status == 503


async def test_outage_with_an_unknown_key_is_503_and_not_remembered() -> None:
    fakes = AdmissionFakes()
    fakes.keys.answer = UNKEY_DOWN
    assert (await fakes.refused()).status == 503
    fakes.keys.answer = valid()
    await fakes.admit()


async def test_postgres_away() -> None:
    fakes = AdmissionFakes(fresh_s=30, stale_s=600)
    await fakes.admit()
    fakes.accounts.answer = POSTGRES_DOWN
    assert (await fakes.refused("unknown")).status == 503
    for second in range(0, 2000, 10):  # an answering Unkey is enough to renew a known identity
        fakes.now_s = second
        assert await fakes.admit() == Principal("user", "api-key", "uk_1")
    fakes.keys.answer = valid(key_id="uk_2")  # the same text is another key now
    fakes.now_s += 700
    assert (await fakes.refused()).status == 503


async def test_postgres_away_does_not_revive_a_revoked_key() -> None:
    fakes = AdmissionFakes(fresh_s=30)
    await fakes.admit()
    fakes.accounts.answer, fakes.keys.answer, fakes.now_s = POSTGRES_DOWN, no("NOT_FOUND"), 31
    assert (await fakes.refused()).status == 401


async def test_expiry() -> None:
    fakes = AdmissionFakes(fresh_s=30, stale_s=600)
    fakes.keys.answer = valid(expires=int(NOW_S + 10) * 1000)
    await fakes.admit()
    fakes.now_s, fakes.keys.answer = 9.9, UNKEY_DOWN
    await fakes.admit()
    fakes.now_s = 10
    assert (await fakes.refused()).status == 503  # past its end no stale time helps
    fakes.keys.answer = no("EXPIRED")
    assert (await fakes.refused()).status == 401
    fakes.now_s, fakes.keys.answer = 40, valid(expires=int(NOW_S + 1000) * 1000)
    await fakes.admit()  # it was extended


async def test_an_extended_key_comes_back_at_once() -> None:
    fakes = AdmissionFakes()
    fakes.keys.answer = valid(expires=int(NOW_S + 10) * 1000)
    await fakes.admit()
    fakes.now_s, fakes.keys.answer = 11, valid(expires=int(NOW_S + 1000) * 1000)
    await fakes.admit()


# Many callers.


async def test_single_flight() -> None:
    fakes = AdmissionFakes()
    fakes.keys.gate.clear()
    callers = [asyncio.create_task(fakes.admission.admit(KEY)) for _ in range(500)]
    await asyncio.sleep(0)
    for caller in callers[:100]:
        caller.cancel()  # those who leave do not take the answer with them
    fakes.keys.gate.set()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert results[100:] == [Principal("user", "api-key", "uk_1")] * 400
    assert len(fakes.keys.asked) == len(fakes.accounts.asked) == 1


@pytest.mark.parametrize(("answer", "status"), [(UNKEY_DOWN, 503), (no("NOT_FOUND"), 401)])
async def test_single_flight_of_a_failure(answer: Verification | DependencyDown, status: int) -> None:
    fakes = AdmissionFakes()
    fakes.keys.gate.clear()
    fakes.keys.answer = answer
    callers = [asyncio.create_task(fakes.admission.admit(KEY)) for _ in range(50)]
    await asyncio.sleep(0)
    fakes.keys.gate.set()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert {result.status for result in results if isinstance(result, ApiError)} == {status}
    assert len(results) == 50
    assert len(fakes.keys.asked) == 1


async def test_negative_cache() -> None:
    fakes = AdmissionFakes(negative_s=10, negative_max=3)
    fakes.keys.answer = no("NOT_FOUND")
    await fakes.refused("bad")
    fakes.now_s = 9.9
    await fakes.refused("bad")
    assert fakes.keys.asked == ["bad"]
    fakes.now_s = 10
    await fakes.refused("bad")
    assert fakes.keys.asked == ["bad"] * 2
    for number in range(50):
        await fakes.refused(f"random-{number}")
    assert len(fakes.admission._refused) == 3
    assert len(fakes.admission._asking) == 0
    await fakes.refused("bad")
    assert fakes.keys.asked[-1] == "bad"


async def test_known_keys_are_bounded_and_never_kept_as_text() -> None:
    fakes = AdmissionFakes(cache_max=4)
    for number in range(20):
        await fakes.admit(f"key-{number}")
    assert len(fakes.admission._known) == 4
    assert all(len(digest) == 32 and b"key" not in digest for digest in fakes.admission._known)
    await fakes.admit("key-19")
    assert len(fakes.keys.asked) == 20


@pytest.mark.parametrize("key", ["", "k" * 513])
async def test_no_key_is_not_asked_about(key: str) -> None:
    fakes = AdmissionFakes()
    assert (await fakes.refused(key)).status == 401
    assert fakes.keys.asked == []
    await fakes.admit("k" * 512)


async def test_keys_differ_in_every_character() -> None:
    fakes = AdmissionFakes()
    await fakes.admit(KEY)
    fakes.keys.answer = no("NOT_FOUND")
    for other in (KEY.upper(), KEY[:-1], KEY + "1", KEY + "\u00e9"):
        assert (await fakes.refused(other)).status == 401
