"""Wrong keys are bounded for each address, and keep nobody out whose key is good: questions wait in line."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from random import Random

import pytest

from gateway.access.line import AT_ONCE, WAITING_MAX, QuestionLine
from gateway.access.unknown_keys import ADDRESSES_MAX, UnknownKeyLimit
from gateway.keys.verify import Verification
from gateway.kit.errors import ApiError, DependencyDown
from tests.access.admissions import KEY, UNKEY_DOWN, AdmissionFakes, no, valid
from tests.support.patience import ENDS_S


async def test_unknown_keys_of_one_address_are_bounded() -> None:
    fakes = AdmissionFakes(misses_per_minute=10)
    await fakes.admit(KEY, peer="192.0.2.1")
    fakes.keys.answer = no("NOT_FOUND")
    for number in range(10):
        assert (await fakes.refused(f"guess-{number}", peer="192.0.2.1")).status == 401
    asked = len(fakes.keys.asked)
    error = await fakes.refused("guess-10", peer="192.0.2.1")
    assert (error.status, error.code, error.headers) == (429, "rate_limit_exceeded", {"Retry-After": "60"})
    assert len(fakes.keys.asked) == asked
    await fakes.admit(KEY, peer="192.0.2.1")  # a known key passes
    assert (await fakes.refused("guess-0", peer="192.0.2.1")).status == 401  # and so does a known no
    assert (await fakes.refused("guess-11", peer="192.0.2.2")).status == 401
    fakes.now_s = 60
    assert (await fakes.refused("guess-12", peer="192.0.2.1")).status == 401


@pytest.mark.parametrize("answer", [valid(), no("RATE_LIMITED"), UNKEY_DOWN])
async def test_only_unknown_keys_count(answer: Verification | DependencyDown) -> None:
    fakes = AdmissionFakes(misses_per_minute=2)
    fakes.keys.answer = answer
    for number in range(6):
        try:
            await fakes.admit(f"key-{number}", peer="192.0.2.1")
        except ApiError as error:
            refused = error
            assert "incorrect API keys" not in refused.message
        fakes.now_s += 10  # the circuit does not stay open for long


async def test_a_crowd_with_one_new_key_is_one_question() -> None:
    fakes = AdmissionFakes(misses_per_minute=2)
    fakes.keys.gate.clear()
    callers = [asyncio.create_task(fakes.admission.admit(KEY, peer="192.0.2.1")) for _ in range(100)]
    await asyncio.sleep(0)
    fakes.keys.gate.set()
    assert len(await asyncio.gather(*callers)) == 100


async def test_what_is_only_under_way_does_not_count() -> None:
    """Behind a balancer everybody who calls a proxy that has just started has the same address."""
    fakes = AdmissionFakes(misses_per_minute=10)
    fakes.keys.gate.clear()
    callers = [asyncio.create_task(fakes.admission.admit(f"key-{n}", peer="192.0.2.1")) for n in range(1500)]
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(fakes.keys.asked) == AT_ONCE  # the others wait, and nobody is refused for it
    fakes.keys.gate.set()
    assert len(await asyncio.gather(*callers)) == 1500


@pytest.mark.long
async def test_new_good_keys_get_in_between_wrong_ones_from_the_same_address() -> None:
    fakes = AdmissionFakes(misses_per_minute=600)
    good = [f"good-{number}" for number in range(1500)]
    wrong = [f"wrong-{number}" for number in range(10_000)]
    mixed = Random(7).sample(good + wrong, k=len(good) + len(wrong))
    under_way = most = 0

    async def verify(key: str, tags: Sequence[str] = ()) -> Verification:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        return valid() if key.startswith("good") else no("NOT_FOUND")

    fakes.keys.verify = verify  # type: ignore[method-assign]

    async def status(key: str) -> int:
        try:
            await fakes.admission.admit(key, peer="192.0.2.1")
        except ApiError as error:
            return error.status
        return 200

    statuses = await asyncio.gather(*map(status, mixed[:WAITING_MAX]))
    statuses += await asyncio.gather(*map(status, mixed[WAITING_MAX:]))
    assert [told for key, told in zip(mixed, statuses, strict=True) if key.startswith("good")] == [200] * 1500
    assert most == AT_ONCE


@pytest.mark.long
async def test_wrong_keys_alone_are_bounded_however_many_come_at_once() -> None:
    fakes = AdmissionFakes(misses_per_minute=600)
    fakes.keys.answer = no("NOT_FOUND")
    fakes.keys.gate.clear()
    callers = [asyncio.create_task(fakes.refused(f"wrong-{n}", peer="192.0.2.1")) for n in range(10_000)]
    other = asyncio.create_task(fakes.refused("another", peer="192.0.2.2"))
    await asyncio.sleep(0)
    fakes.keys.gate.set()
    refused = Counter(error.status for error in await asyncio.gather(*callers))
    assert refused[401] + refused[429] == 10_000
    assert 600 <= refused[401] < 600 + AT_ONCE
    assert (await other).status == 401  # of another address: waited its turn


@pytest.mark.long
async def test_good_keys_that_come_a_moment_after_a_flood_get_in() -> None:
    fakes = AdmissionFakes(misses_per_minute=600)
    fakes.keys.gate.clear()
    verify = fakes.keys.verify

    async def judge(key: str, tags: Sequence[str] = ()) -> Verification:
        await verify(key, tags)
        return valid() if key.startswith("good") else no("NOT_FOUND")

    fakes.keys.verify = judge  # type: ignore[method-assign]
    wrong = [asyncio.create_task(fakes.admission.admit(f"wrong-{n}", peer="192.0.2.1")) for n in range(8000)]
    await asyncio.sleep(0)
    good = [asyncio.create_task(fakes.admission.admit(f"good-{n}", peer="192.0.2.1")) for n in range(1500)]
    await asyncio.sleep(0)
    fakes.keys.gate.set()
    assert len(await asyncio.gather(*good)) == 1500
    refused = await asyncio.gather(*wrong, return_exceptions=True)
    assert all(isinstance(error, ApiError) for error in refused)


async def test_a_turn_that_nobody_takes_is_passed_on() -> None:
    line, inside = QuestionLine(lambda _: 0, at_once=1), asyncio.Event()

    async def question() -> None:
        async with line.turn():
            await inside.wait()

    tasks = [asyncio.create_task(question()) for _ in range(4)]
    await asyncio.sleep(0)
    tasks[1].cancel()  # while it waits
    await asyncio.sleep(0)
    inside.set()
    await asyncio.sleep(0)
    for task in tasks[2:]:  # perhaps with its turn just given
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    async with asyncio.timeout(10):
        await question()


async def test_a_key_that_is_known_waits_behind_no_stranger() -> None:
    fakes = AdmissionFakes(fresh_s=30)
    await fakes.admit()
    fakes.keys.gate.clear()
    strangers = [asyncio.create_task(fakes.refused(f"key-{n}", peer="192.0.2.1")) for n in range(2 * AT_ONCE)]
    await asyncio.sleep(0)
    fakes.now_s, asked = 31, len(fakes.keys.asked)
    known = asyncio.create_task(fakes.admission.admit(KEY, peer="192.0.2.1"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert fakes.keys.asked[-1] == KEY
    assert len(fakes.keys.asked) > asked
    fakes.keys.gate.set()
    await known
    for task in strangers:
        task.cancel()
    await asyncio.gather(*strangers, return_exceptions=True)


async def test_a_key_that_may_go_on_without_unkey_does_not_wait_long_behind_others() -> None:
    """Where Unkey takes long, the turn of a key that is in use may come a minute later."""
    fakes = AdmissionFakes(fresh_s=30, stale_s=600, timeout_s=0.02)
    keys = [f"key-{number}" for number in range(AT_ONCE + 1)]
    for key in keys:
        await fakes.admit(key)
    fakes.keys.gate.clear()
    fakes.now_s = 31
    *before, last = keys
    asking = [asyncio.create_task(fakes.admission.admit(key)) for key in before]
    await asyncio.sleep(0)
    for _ in range(2):
        async with asyncio.timeout(ENDS_S):
            await fakes.admit(last)
    assert len(fakes.keys.asked) == len(keys) + AT_ONCE  # nobody was asked about it again
    fakes.keys.gate.set()
    await asyncio.gather(*asking)
    fakes.now_s = 34
    await fakes.admit(last)
    assert fakes.keys.asked[-1] == last


async def test_a_line_that_is_full_says_so() -> None:
    line, inside = QuestionLine(lambda _: 0, at_once=1, waiting_max=2), asyncio.Event()

    async def question() -> None:
        async with line.turn():
            await inside.wait()

    tasks = [asyncio.create_task(question()) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(DependencyDown, match="2 questions wait already"):
        await question()
    inside.set()
    await asyncio.gather(*tasks)
    await question()


def test_the_table_of_addresses_is_bounded() -> None:
    misses = UnknownKeyLimit(1, monotonic=lambda: 0.0)
    for number in range(ADDRESSES_MAX + 100):
        misses.count_refused(str(number))
    assert len(misses._minutes) == ADDRESSES_MAX
    with pytest.raises(ApiError):
        misses.check(str(ADDRESSES_MAX + 99))
    misses.check("0")  # it was forgotten
    unbounded = UnknownKeyLimit(0, monotonic=lambda: 0.0)
    for _ in range(1000):
        unbounded.count_refused("1")
    unbounded.check("1")
