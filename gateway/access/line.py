"""The line in which questions about keys wait: some are under way, the others follow in the order in which they came.

Without it a crowd of new keys, as after a restart, would spend Unkey's time-out on waiting for a connection, and an
outage would be seen where there is none.
"""

import asyncio
from types import TracebackType
from typing import Final

from gateway.kit.errors import DependencyDown

AT_ONCE: Final = 48
"""Questions under way in one line. A proxy has two lines, over a session of a hundred connections to Unkey."""
WAITING_MAX: Final = 10_000
"""Questions that wait in one line: as many as clients have connections. A client that leaves does not end its own."""


class QuestionLine:
    """An `async with` of it is one question, from its turn on. Raises DependencyDown when too many wait."""

    def __init__(self, *, at_once: int = AT_ONCE, waiting_max: int = WAITING_MAX) -> None:
        self._turns: Final = asyncio.Semaphore(at_once)
        self._waiting_max: Final = waiting_max
        self._waiting = 0

    async def __aenter__(self) -> None:
        if self._turns.locked() and self._waiting >= self._waiting_max:
            raise DependencyDown("unkey", f"{self._waiting} questions wait already")
        self._waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._waiting -= 1

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._turns.release()
