"""Unkey is asked with care: behind a circuit breaker, doubted without its canary, asked anew each time when strict."""

import asyncio
from random import Random

import pytest

from gateway.access.breaker import FAILURES, OPEN_S, Breaker
from gateway.access.verification import tags_of
from gateway.kit.errors import ApiError, DependencyDown
from tests.access.admissions import CANARY, KEY, UNKEY_DOWN, AdmissionFakes, no, valid

# The breaker.


async def test_after_failures_in_a_row_the_circuit_opens() -> None:
    fakes = AdmissionFakes()
    fakes.keys.answer = UNKEY_DOWN
    for number in range(FAILURES + 20):
        assert (await fakes.refused(f"key-{number}")).status == 503
    assert len(fakes.keys.asked) == FAILURES
    assert fakes.verifier.circuit_is_open
    fakes.now_s = fakes.open_s - 0.1
    await fakes.refused("later")
    assert len(fakes.keys.asked) == FAILURES
    fakes.now_s = fakes.open_s
    await fakes.refused("later")  # one probes it and fails
    await fakes.refused("latest")
    assert len(fakes.keys.asked) == FAILURES + 1
    fakes.now_s += fakes.open_s
    fakes.keys.answer = valid()
    await fakes.admit("later")
    await fakes.admit("latest")
    assert not fakes.verifier.circuit_is_open


async def test_only_one_request_probes_a_half_open_circuit() -> None:
    fakes = AdmissionFakes()
    fakes.keys.answer = UNKEY_DOWN
    for number in range(FAILURES):
        await fakes.refused(f"key-{number}")
    fakes.now_s, fakes.keys.answer = fakes.open_s, valid()
    fakes.keys.gate.clear()
    callers = [asyncio.create_task(fakes.admission.admit(f"new-{number}")) for number in range(50)]
    for _ in range(5):
        await asyncio.sleep(0)
    fakes.keys.gate.set()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert len(fakes.keys.asked) == FAILURES + 1
    assert [isinstance(result, ApiError) for result in results].count(True) == 49


async def test_an_answer_in_between_begins_the_count_anew() -> None:
    fakes = AdmissionFakes()
    for _ in range(3):
        fakes.keys.answer = UNKEY_DOWN
        for number in range(FAILURES - 1):
            await fakes.refused(f"key-{number}")
        fakes.keys.answer = no("NOT_FOUND")  # an answer, whatever it says
        await fakes.refused("unknown")
        fakes.now_s += 20
    assert not fakes.verifier.circuit_is_open


async def test_known_keys_pass_while_the_circuit_is_open() -> None:
    fakes = AdmissionFakes(fresh_s=30, stale_s=600)
    await fakes.admit()
    fakes.keys.answer, fakes.now_s = UNKEY_DOWN, 31
    for number in range(FAILURES):
        await fakes.refused(f"key-{number}")
    asked = len(fakes.keys.asked)
    await fakes.admit()
    assert len(fakes.keys.asked) == asked


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
    fakes = AdmissionFakes(canary=CANARY, fresh_s=30, stale_s=600)
    await fakes.admit()
    fakes.now_s, fakes.keys.answer, fakes.keys.canary = 31, no("NOT_FOUND"), no("NOT_FOUND")
    await fakes.admit()  # it was good: it goes on in its stale time
    assert (await fakes.refused("stranger")).status == 503
    assert fakes.verifier.is_doubted
    assert fakes.keys.canary_asked == 1  # not asked for everybody
    fakes.now_s += 2
    fakes.keys.canary, fakes.keys.answer = valid(), valid()
    await fakes.admit()
    fakes.keys.answer = no("NOT_FOUND")
    assert (await fakes.refused("another stranger")).status == 401
    assert not fakes.verifier.is_doubted


@pytest.mark.parametrize("code", ["NOT_FOUND", "FORBIDDEN"])
async def test_a_good_canary_lets_a_no_count(code: str) -> None:
    fakes = AdmissionFakes(canary=CANARY, fresh_s=30)
    await fakes.admit()
    fakes.keys.answer, fakes.now_s = no(code), 31
    assert (await fakes.refused()).status in (401, 403)
    for number in range(20):
        await fakes.refused(f"stranger-{number}")
    assert fakes.keys.canary_asked == 1  # it answers for strangers for a while
    fakes.now_s = 62
    await fakes.refused("late stranger")
    assert fakes.keys.canary_asked == 2


async def test_a_known_key_is_not_refused_on_an_old_answer_about_the_canary() -> None:
    fakes = AdmissionFakes(canary=CANARY, fresh_s=30, stale_s=600)
    await fakes.admit()
    fakes.now_s, fakes.keys.answer = 25, no("NOT_FOUND")
    await fakes.refused("stranger")  # the canary was known just now
    fakes.now_s, fakes.keys.canary = 31, no("NOT_FOUND")
    await fakes.admit()
    assert fakes.keys.canary_asked == 2


async def test_a_canary_that_is_only_disabled_proves_the_root_key() -> None:
    fakes = AdmissionFakes(canary=CANARY)
    fakes.keys.canary, fakes.keys.answer = no("DISABLED"), no("NOT_FOUND")
    assert (await fakes.refused()).status == 401


async def test_unkey_away_at_the_canary() -> None:
    fakes = AdmissionFakes(canary=CANARY)
    fakes.keys.canary, fakes.keys.answer = UNKEY_DOWN, no("NOT_FOUND")
    assert (await fakes.refused()).status == 503


async def test_the_canary_as_a_key_of_its_own() -> None:
    fakes = AdmissionFakes(canary=CANARY)
    fakes.keys.canary = no("NOT_FOUND")
    assert (await fakes.refused(CANARY)).status == 401


# Strict.


async def test_strict_asks_on_every_call() -> None:
    fakes = AdmissionFakes(fresh_s=0, stale_s=0)
    for _ in range(3):
        await fakes.admit()
    assert fakes.keys.asked == [KEY] * 3
    fakes.keys.answer = no("DISABLED")
    for _ in range(3):
        assert (await fakes.refused()).status == 401
    assert fakes.keys.asked == [KEY] * 6  # a no is not remembered either
    fakes.keys.answer = UNKEY_DOWN
    assert (await fakes.refused()).status == 503


async def test_strict_does_not_answer_a_call_by_an_earlier_question() -> None:
    fakes = AdmissionFakes(fresh_s=0, stale_s=0)
    fakes.keys.gate.clear()
    first = asyncio.create_task(fakes.admission.admit(KEY))
    await asyncio.sleep(0)
    second = asyncio.create_task(fakes.admission.admit(KEY))
    for _ in range(3):
        await asyncio.sleep(0)
    assert fakes.keys.asked == [KEY] * 2
    fakes.keys.gate.set()
    assert await first == await second


async def test_without_fresh_time_an_outage_may_still_be_stale() -> None:
    fakes = AdmissionFakes(fresh_s=0, stale_s=600)
    await fakes.admit()
    fakes.keys.answer, fakes.now_s = UNKEY_DOWN, 1
    await fakes.admit()
    fakes.now_s = 601
    assert (await fakes.refused()).status == 503


# Tags.


async def test_tags_of_the_call_that_asks() -> None:
    fakes = AdmissionFakes(fresh_s=30)
    await fakes.admit(endpoint="chat")
    fakes.now_s = 25
    await fakes.admit(endpoint="responses")
    assert fakes.keys.tags == [["endpoint:chat"], ["endpoint:responses", "model:gpt-5.1"]]


def test_tags_are_cut_and_cleaned() -> None:
    assert tags_of("", "") == []
    assert tags_of("chat", "ft:gpt-4.1:org\n\"'é" + "x" * 600) == [
        "endpoint:chat",
        "model:ft:gpt-4.1:org____" + "x" * 82,
    ]
