"""A proxy that ends, told to or by a background loop that fails, lets its calls finish for a while, and settles the
rest."""

import asyncio

import pytest

from gateway.config.settings import Settings
from gateway.kit.loops import LoopFailed
from gateway.processes import proxy
from gateway.processes.arguments import ProcessArguments
from gateway.processes.supervisor import StatusOf
from gateway.proxy.active_relays import ActiveRelays
from gateway.usage.event import UsageEvent
from tests.proxy.test_begun import STREAM, ask, settled
from tests.support.gateway import Stack

__all__ = ["settled"]
ENDS_S = 120.0
"""Only ever waited for in full when something is broken."""


@pytest.mark.parametrize("fails", [True, False], ids=["a loop fails", "told to stop"])
@pytest.mark.parametrize(
    ("drain_s", "chunks", "evidence"),
    [(60.0, 20, "reported"), (0.2, 2_000, "estimated")],
    ids=["a call that ends soon", "a call that goes on"],
)
async def test_running_calls_are_settled(
    beside_running: Stack,
    settled: list[UsageEvent],  # the fixture
    monkeypatch: pytest.MonkeyPatch,
    fails: bool,
    drain_s: float,
    chunks: int,
    evidence: str,
) -> None:
    for name in ("DRAIN_S", "FAILED_DRAIN_S"):
        monkeypatch.setattr(proxy, name, drain_s)
    monkeypatch.setattr(proxy, "WATCH_S", 0.05)
    check, stop, broken = ActiveRelays.check, asyncio.Event(), asyncio.Event()

    async def check_or_fail(self: ActiveRelays) -> None:
        if broken.is_set():
            raise KeyError("CANARY")
        await check(self)

    monkeypatch.setattr(ActiveRelays, "check", check_or_fail)

    ready, status_of = asyncio.Event(), list[StatusOf]()

    def is_ready(how: StatusOf) -> None:
        status_of.append(how)
        ready.set()

    before = len(await asyncio.to_thread(beside_running.truth))
    beside_running.control("openai", body={"interval_s": 0.05, "chunks": chunks})
    place = ProcessArguments(0, "127.0.0.1", beside_running.port)
    running = asyncio.create_task(proxy.run(Settings.of(beside_running.env), place, stop, is_ready))
    await asyncio.wait_for(ready.wait(), ENDS_S)
    call = asyncio.create_task(ask(beside_running, STREAM))
    async with asyncio.timeout(ENDS_S):
        while len(await asyncio.to_thread(beside_running.truth)) == before:
            await asyncio.sleep(0.05)
    if fails:
        broken.set()
        with pytest.raises(LoopFailed, match="'bounds' has failed"):
            await asyncio.wait_for(running, ENDS_S)
    else:
        stop.set()
        await asyncio.wait_for(running, ENDS_S)
    assert status_of[0]().failure == ("the background loop 'bounds' has failed" if fails else None)
    assert [event.evidence for event in settled] == [evidence]
    assert (b"[DONE]" in await call) == (evidence == "reported")
