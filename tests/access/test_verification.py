"""Unkey is asked with care: behind a circuit breaker, doubted without its canary, asked anew each time when strict."""

import asyncio
from random import Random

import pytest

from gateway.access.breaker import FAILURES, OPEN_S, Breaker
from gateway.access.unknown_keys import ADDRESSES_MAX, UnknownKeyLimit
from gateway.access.verification import tags_of
from gateway.keys.verify import Verification
from gateway.kit.errors import ApiError, DependencyDown
from tests.access.admissions import CANARY, KEY, UNKEY_DOWN, House, no, valid

# The breaker.


async def test_after_failures_in_a_row_the_circuit_opens() -> None:
    house = House()
    house.keys.answer = UNKEY_DOWN
    for number in range(FAILURES + 20):
        assert (await house.refused(f"key-{number}")).status == 503
    assert len(house.keys.asked) == FAILURES
    assert house.verifier.circuit_is_open
    house.now_s = house.open_s - 0.1
    await house.refused("later")
    assert len(house.keys.asked) == FAILURES
    house.now_s = house.open_s
    await house.refused("later")  # one probes it and fails
    await house.refused("latest")
    assert len(house.keys.asked) == FAILURES + 1
    house.now_s += house.open_s
    house.keys.answer = valid()
    await house.admit("later")
    await house.admit("latest")
    assert not house.verifier.circuit_is_open


async def test_only_one_request_probes_a_half_open_circuit() -> None:
    house = House()
    house.keys.answer = UNKEY_DOWN
    for number in range(FAILURES):
        await house.refused(f"key-{number}")
    house.now_s, house.keys.answer = house.open_s, valid()
    house.keys.gate.clear()
    callers = [asyncio.create_task(house.admission.admit(f"new-{number}")) for number in range(50)]
    for _ in range(5):
        await asyncio.sleep(0)
    house.keys.gate.set()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert len(house.keys.asked) == FAILURES + 1
    assert [isinstance(result, ApiError) for result in results].count(True) == 49


async def test_an_answer_in_between_begins_the_count_anew() -> None:
    house = House()
    for _ in range(3):
        house.keys.answer = UNKEY_DOWN
        for number in range(FAILURES - 1):
            await house.refused(f"key-{number}")
        house.keys.answer = no("NOT_FOUND")  # an answer, whatever it says
        await house.refused("unknown")
        house.now_s += 20
    assert not house.verifier.circuit_is_open


async def test_known_keys_pass_while_the_circuit_is_open() -> None:
    house = House(fresh_s=30, stale_s=600)
    await house.admit()
    house.keys.answer, house.now_s = UNKEY_DOWN, 31
    for number in range(FAILURES):
        await house.refused(f"key-{number}")
    asked = len(house.keys.asked)
    await house.admit()
    assert len(house.keys.asked) == asked


def test_the_while_is_drawn_anew() -> None:
    now = 0.0
    breaker = Breaker(monotonic=lambda: now, uniform=Random(7).uniform)
    whiles = set()
    for _ in range(FAILURES):
        breaker.record_failure()
    for _ in range(50):
        began = now
        while True:
            try:
                breaker.enter()
            except DependencyDown:
                now += 0.01
            else:
                break
        whiles.add(round(now - began, 1))
        breaker.record_failure()
    assert min(whiles) >= OPEN_S[0]
    assert max(whiles) <= OPEN_S[1] + 0.1
    assert len(whiles) > 20


# The canary.


async def test_no_key_is_refused_as_unknown_while_the_canary_is_unknown() -> None:
    house = House(canary=CANARY, fresh_s=30, stale_s=600)
    await house.admit()
    house.now_s, house.keys.answer, house.keys.canary = 31, no("NOT_FOUND"), no("NOT_FOUND")
    await house.admit()  # it was good: it goes on in its stale time
    assert (await house.refused("stranger")).status == 503
    assert house.verifier.is_doubted
    assert house.keys.canary_asked == 1  # not asked for everybody
    house.now_s += 2
    house.keys.canary, house.keys.answer = valid(), valid()
    await house.admit()
    house.keys.answer = no("NOT_FOUND")
    assert (await house.refused("another stranger")).status == 401
    assert not house.verifier.is_doubted


@pytest.mark.parametrize("code", ["NOT_FOUND", "FORBIDDEN"])
async def test_a_good_canary_lets_a_no_count(code: str) -> None:
    house = House(canary=CANARY, fresh_s=30)
    await house.admit()
    house.keys.answer, house.now_s = no(code), 31
    assert (await house.refused()).status in (401, 403)
    for number in range(20):
        await house.refused(f"stranger-{number}")
    assert house.keys.canary_asked == 1  # it answers for strangers for a while
    house.now_s = 62
    await house.refused("late stranger")
    assert house.keys.canary_asked == 2


async def test_a_known_key_is_not_refused_on_an_old_answer_about_the_canary() -> None:
    house = House(canary=CANARY, fresh_s=30, stale_s=600)
    await house.admit()
    house.now_s, house.keys.answer = 25, no("NOT_FOUND")
    await house.refused("stranger")  # the canary was known just now
    house.now_s, house.keys.canary = 31, no("NOT_FOUND")
    await house.admit()
    assert house.keys.canary_asked == 2


async def test_a_canary_that_is_only_disabled_proves_the_root_key() -> None:
    house = House(canary=CANARY)
    house.keys.canary, house.keys.answer = no("DISABLED"), no("NOT_FOUND")
    assert (await house.refused()).status == 401


async def test_unkey_away_at_the_canary() -> None:
    house = House(canary=CANARY)
    house.keys.canary, house.keys.answer = UNKEY_DOWN, no("NOT_FOUND")
    assert (await house.refused()).status == 503


async def test_the_canary_as_a_key_of_its_own() -> None:
    house = House(canary=CANARY)
    house.keys.canary = no("NOT_FOUND")
    assert (await house.refused(CANARY)).status == 401


# Strict.


async def test_strict_asks_on_every_call() -> None:
    house = House(fresh_s=0, stale_s=0)
    for _ in range(3):
        await house.admit()
    assert house.keys.asked == [KEY] * 3
    house.keys.answer = no("DISABLED")
    for _ in range(3):
        assert (await house.refused()).status == 401
    assert house.keys.asked == [KEY] * 6  # a no is not remembered either
    house.keys.answer = UNKEY_DOWN
    assert (await house.refused()).status == 503


async def test_strict_does_not_answer_a_call_by_an_earlier_question() -> None:
    house = House(fresh_s=0, stale_s=0)
    house.keys.gate.clear()
    first = asyncio.create_task(house.admission.admit(KEY))
    await asyncio.sleep(0)
    second = asyncio.create_task(house.admission.admit(KEY))
    for _ in range(3):
        await asyncio.sleep(0)
    assert house.keys.asked == [KEY] * 2
    house.keys.gate.set()
    assert await first == await second


async def test_without_fresh_time_an_outage_may_still_be_stale() -> None:
    house = House(fresh_s=0, stale_s=600)
    await house.admit()
    house.keys.answer, house.now_s = UNKEY_DOWN, 1
    await house.admit()
    house.now_s = 601
    assert (await house.refused()).status == 503


# Tags.


async def test_tags_of_the_call_that_asks() -> None:
    house = House(fresh_s=30)
    await house.admit(endpoint="chat")
    house.now_s = 25
    await house.admit(endpoint="responses")
    assert house.keys.tags == [["endpoint:chat"], ["endpoint:responses", "model:gpt-5.1"]]


def test_tags_are_cut_and_cleaned() -> None:
    assert tags_of("", "") == []
    assert tags_of("chat", "ft:gpt-4.1:org\n\"'é" + "x" * 600) == [
        "endpoint:chat",
        "model:ft:gpt-4.1:org____" + "x" * 82,
    ]


# Many unknown keys.


async def test_unknown_keys_of_one_address_are_bounded() -> None:
    house = House(misses_per_minute=10)
    await house.admit(KEY, peer="192.0.2.1")
    house.keys.answer = no("NOT_FOUND")
    for number in range(10):
        assert (await house.refused(f"guess-{number}", peer="192.0.2.1")).status == 401
    asked = len(house.keys.asked)
    error = await house.refused("guess-10", peer="192.0.2.1")
    assert (error.status, error.code, error.headers) == (429, "rate_limit_exceeded", {"Retry-After": "60"})
    assert len(house.keys.asked) == asked
    await house.admit(KEY, peer="192.0.2.1")  # a known key passes
    assert (await house.refused("guess-0", peer="192.0.2.1")).status == 401  # and so does a known no
    assert (await house.refused("guess-11", peer="192.0.2.2")).status == 401
    house.now_s = 60
    assert (await house.refused("guess-12", peer="192.0.2.1")).status == 401


@pytest.mark.parametrize("answer", [valid(), no("RATE_LIMITED"), UNKEY_DOWN])
async def test_only_unknown_keys_count(answer: Verification | DependencyDown) -> None:
    house = House(misses_per_minute=2)
    house.keys.answer = answer
    for number in range(6):
        try:
            await house.admit(f"key-{number}", peer="192.0.2.1")
        except ApiError as error:
            refused = error
            assert "incorrect API keys" not in refused.message
        house.now_s += 10  # the circuit does not stay open for long


async def test_a_crowd_with_one_new_key_is_one_question() -> None:
    house = House(misses_per_minute=2)
    house.keys.gate.clear()
    callers = [asyncio.create_task(house.admission.admit(KEY, peer="192.0.2.1")) for _ in range(100)]
    await asyncio.sleep(0)
    house.keys.gate.set()
    assert len(await asyncio.gather(*callers)) == 100


def test_the_table_of_addresses_is_bounded() -> None:
    misses = UnknownKeyLimit(1, monotonic=lambda: 0.0)
    for number in range(ADDRESSES_MAX + 100):
        misses.take(str(number))
    assert len(misses._counts) == ADDRESSES_MAX
    with pytest.raises(ApiError):
        misses.take(str(ADDRESSES_MAX + 99))
    misses.take("0")  # it was forgotten
    unbounded = UnknownKeyLimit(0, monotonic=lambda: 0.0)
    for _ in range(1000):
        unbounded.take("1")
