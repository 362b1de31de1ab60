"""An outage of PostgreSQL is told once by whoever applies events of meetings, and not where Daily.co is not used."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog

from gateway.kit.errors import DependencyDown
from gateway.kit.loops import Loops
from gateway.meetings.worker import MeetingsWorker
from tests.support.patience import ENDS_S


class Away:
    """An inbox in a database that is away, but for the turns that `answers` says."""

    def __init__(self, *answers: bool) -> None:
        self.answers = list(answers)
        self.asked = asyncio.Event()
        self.count = 0

    @contextlib.asynccontextmanager
    async def next_event(self) -> AsyncIterator[None]:
        self.count += 1
        if self.count >= 6:
            self.asked.set()
        if self.answers and self.answers.pop(0):
            yield None
            return
        raise DependencyDown("postgres", "away")

    async def claim(self) -> None:
        """Nothing to claim."""


async def told(inbox: Any, *, is_used: bool) -> int:
    work = MeetingsWorker(inbox, inbox, new_id=lambda: "", is_used=is_used)
    with structlog.testing.capture_logs() as lines:
        loops = Loops(uniform=lambda _, __: 1.0)
        loops.every("meetings", work.apply_due, every_s=0, retry_s=0)
        async with loops:
            await asyncio.wait_for(inbox.asked.wait(), ENDS_S)
    return sum(line["event"] == "loop waits" for line in lines)


@pytest.mark.parametrize(
    ("answers", "is_used", "lines"),
    [((), True, 1), ((), False, 0), ((False, False, True, False, False, False), True, 2)],
)
async def test_one_line_for_an_outage_where_it_matters(answers: tuple[bool, ...], is_used: bool, lines: int) -> None:
    assert await told(Away(*answers), is_used=is_used) == lines
