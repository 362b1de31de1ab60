"""Background loops: an outage is waited out and shown, a bug ends them all and says where, an end keeps its order."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import structlog

from gateway.kit.errors import DependencyDown
from gateway.kit.loops import RETRY_MAX_S, RETRY_S, LoopFailed, Loops

FOR_EVER_S = 3600.0
ENDS_S = 60.0
"""Only ever waited for in full when something is broken."""


class Waits:
    """A jitter that is told every wait, by its bounds, and makes it none."""

    def __init__(self) -> None:
        self.bounds: set[tuple[float, float]] = set()

    def __call__(self, low: float, high: float) -> float:
        self.bounds.add((low, high))
        return 0.0


def steady(_low: float, _high: float) -> float:
    return 1.0


def failing(error: BaseException, times: int, then: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    """A step that fails so many times, and calls `then` from there on."""
    left = times

    async def step() -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            raise error
        then()

    return step


async def idle() -> None:
    """Nothing to do."""


async def test_an_outage_is_waited_out_shown_and_told_once() -> None:
    loops, back, seen = Loops(uniform=Waits()), asyncio.Event(), list[str | None]()

    async def look() -> None:
        seen.append(loops.waiting_on)

    loops.every("works", idle, every_s=FOR_EVER_S)
    loops.every("looks", look, every_s=0)
    loops.every("recount", failing(DependencyDown("redis", "away"), 9, back.set), every_s=1)
    with structlog.testing.capture_logs() as lines:
        async with loops:
            await asyncio.wait_for(back.wait(), ENDS_S)
            while loops.waiting_on:
                await asyncio.sleep(0)
    assert "redis" in seen
    assert [(line["event"], line["loop"]) for line in lines] == [("loop waits", "recount"), ("loop resumed", "recount")]
    assert lines[0]["what"] == "redis"


async def test_waits_grow_to_a_bound_with_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    waits, slept, back = Waits(), list[float](), asyncio.Event()
    loops = Loops(uniform=lambda low, high: waits(low, high) or 1.0)

    async def is_over(self: Loops, wait_s: float) -> bool:
        slept.append(wait_s)
        await asyncio.sleep(0)
        return self._closing.is_set()

    monkeypatch.setattr(Loops, "_is_over", is_over)
    loops.every("poll", failing(DependencyDown("postgres", "away"), 9, back.set), every_s=7)
    async with loops:
        await asyncio.wait_for(back.wait(), ENDS_S)
    assert slept[:9] == [min(RETRY_MAX_S, RETRY_S * 2**number) for number in range(9)]
    assert set(slept[9:]) == {7}
    assert waits.bounds == {(0.9, 1.1)}


async def test_a_first_wait_that_is_long_does_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    slept, back = list[float](), asyncio.Event()

    async def is_over(self: Loops, wait_s: float) -> bool:
        slept.append(wait_s)
        await asyncio.sleep(0)
        return self._closing.is_set()

    monkeypatch.setattr(Loops, "_is_over", is_over)
    loops = Loops(uniform=steady)
    loops.every("reconcile", failing(DependencyDown("daily", "away"), 3, back.set), every_s=600, retry_s=600)
    async with loops:
        await asyncio.wait_for(back.wait(), ENDS_S)
    assert set(slept) == {600}


@pytest.mark.parametrize("error", [KeyError("what somebody sent"), asyncio.CancelledError("what somebody sent")])
async def test_a_bug_ends_every_loop_and_says_where_but_not_what(error: BaseException) -> None:
    loops, others = Loops(uniform=steady), list[str]()

    async def lasts() -> float:
        try:
            await asyncio.sleep(FOR_EVER_S)
        except asyncio.CancelledError:
            others.append("ended")
            raise
        return 0

    loops.paced("flush", lasts, finishes=True)
    loops.every("recount", failing(error, 1, lambda: None), every_s=1)
    with structlog.testing.capture_logs() as lines, pytest.raises(LoopFailed, match="'recount' has failed") as raised:
        async with loops:
            await asyncio.wait_for(loops.run_until(asyncio.Event()), ENDS_S)
    (line,) = lines
    assert (line["log_level"], line["loop"], line["error"]) == ("error", "recount", type(error).__name__)
    assert "test_loops.py:" in line["where"][-1]
    assert "somebody" not in repr(line) + repr(raised.value)
    assert raised.value.__suppress_context__ or raised.value.__context__ is None
    assert loops.failure is not None
    assert others == ["ended"]


@pytest.mark.parametrize("made_of_it", [DependencyDown("redis", "Connection closed by server."), None])
async def test_a_cancellation_that_a_library_keeps_for_itself_ends_the_loop(made_of_it: DependencyDown | None) -> None:
    loops, waits, swallowed = Loops(uniform=steady), asyncio.Event(), False

    async def swallows() -> None:
        nonlocal swallowed
        waits.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if swallowed:
                raise
            swallowed = True
            if made_of_it is not None:
                raise made_of_it from None

    async def fails() -> None:
        await waits.wait()
        raise KeyError

    loops.every("swallows", swallows, every_s=1)
    loops.every("fails", fails, every_s=1)

    async def run() -> None:
        with pytest.raises(LoopFailed):
            async with loops:
                await loops.run_until(asyncio.Event())

    await asyncio.wait_for(run(), ENDS_S)


async def test_a_bug_that_nobody_waits_for_does_not_disturb_the_end() -> None:
    """Whoever takes things down in order is not cancelled, and hears of it afterwards."""
    loops, went = Loops(uniform=steady), asyncio.Event()
    loops.every("recount", failing(KeyError(), 1, lambda: None), every_s=1)

    async def take_down() -> None:
        async with loops:
            while loops.failure is None:
                await asyncio.sleep(0)
            for _ in range(10):
                await asyncio.sleep(0)
            went.set()

    with pytest.raises(LoopFailed):
        await take_down()
    assert went.is_set()


async def test_another_error_of_the_caller_is_not_hidden() -> None:
    loops = Loops(uniform=steady)
    loops.every("recount", failing(KeyError(), 1, lambda: None), every_s=1)

    async def fails() -> None:
        async with loops:
            while loops.failure is None:
                await asyncio.sleep(0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fails()


async def test_at_the_end_one_that_finishes_completes_its_pass() -> None:
    loops, stop, done = Loops(uniform=steady), asyncio.Event(), list[str]()
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def flush() -> float:
        begun.set()
        await go_on.wait()
        done.append("flush")
        return FOR_EVER_S

    async def forever() -> None:
        try:
            await asyncio.sleep(FOR_EVER_S)
        finally:
            done.append("cancelled")
            go_on.set()

    async def spins() -> None:
        """Awaits nothing: only the pause between its passes lets others run."""

    loops.paced("flush", flush, finishes=True)
    loops.every("forever", forever, every_s=0)
    loops.every("spins", spins, every_s=0)
    async with loops:
        await asyncio.wait_for(begun.wait(), ENDS_S)
        stop.set()
        await loops.run_until(stop)
    assert done == ["cancelled", "flush"]


async def test_the_end_does_not_wait_for_a_pause() -> None:
    loops, begun = Loops(uniform=steady), asyncio.Event()

    async def flush() -> float:
        begun.set()
        return FOR_EVER_S

    loops.paced("flush", flush, finishes=True)
    async with asyncio.timeout(ENDS_S), loops:
        await begun.wait()
