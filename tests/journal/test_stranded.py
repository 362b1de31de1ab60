"""What the disk has refused is tried again until it has landed, whatever fails on the way."""

import asyncio
from random import Random
from typing import Any

import pytest
import structlog

from gateway.kit.errors import DependencyDown
from gateway.proxy import record
from gateway.proxy.record import Recorder
from tests.support.events import call, new_id


class Refuses:
    """A disk that takes nothing."""

    failure = None

    def append(self, _kind: bytes, _payload: bytes) -> asyncio.Future[None]:
        refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        refused.set_exception(DependencyDown("journal", "away"))
        return refused


class Stream:
    """Redis, which fails as each of `errors` says, and then works."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.taken: list[str] = []

    async def append(self, batch: list[tuple[str, bytes]]) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.taken += [event_id for event_id, _ in batch]


async def test_a_bug_leaves_nothing_stranded_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "RETRY_S", 0.01)
    journal: Any = Refuses()
    stream: Any = Stream(KeyError("content"), DependencyDown("redis", "away"), KeyError("content"))
    event = call("user", new_id(Random(1)))
    recorder = Recorder(journal, stream)
    with structlog.testing.capture_logs() as lines:
        await asyncio.wait_for(recorder.settle(event), 60)
        async with asyncio.timeout(60):
            while recorder.stranded:
                await asyncio.sleep(0.01)
    assert stream.taken == [event.id]
    assert recorder.failure is None
    assert [line["error"] for line in lines if line["event"] == "settles cannot be written"] == ["KeyError"] * 2
    assert "content" not in repr(lines)
