"""The line in which questions about keys wait: some are under way, and whose turn comes next is drawn by lot.

Without it a crowd of new keys, as after a restart, would spend Unkey's time-out on waiting for a connection, and an
outage would be seen where there is none. In the order of their coming, a flood of wrong keys would use up the share of
its address before anybody's turn who came a moment later; drawn by lot, good keys among them show what the address is.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final

from gateway.kit.errors import DependencyDown

AT_ONCE: Final = 16
"""Questions under way in one line, of which a proxy has two: so many that none of them waits long for one of the two
connections to PostgreSQL that look-ups have, and 300 keys a second where Unkey takes 50 ms."""
WAITING_MAX: Final = 12_000
"""Questions that wait in one line: more than clients have connections. A client that leaves does not end its own."""


class QuestionLine:
    """An `async with` of a `turn` is one question, from its turn on."""

    def __init__(self, draw: Callable[[int], int], *, at_once: int = AT_ONCE, waiting_max: int = WAITING_MAX) -> None:
        """`draw` gives a number from 0 to one less than its argument."""
        self._draw: Final = draw
        self._free = at_once
        self._waiting_max: Final = waiting_max
        self._waiting: Final[list[asyncio.Future[None]]] = []

    @contextlib.asynccontextmanager
    async def turn(self, *, within_s: float | None = None) -> AsyncIterator[None]:
        """Raises DependencyDown: too many wait, or its turn has not come `within_s` seconds."""
        await self._await_turn(within_s)
        try:
            yield
        finally:
            self._pass_on()

    async def _await_turn(self, within_s: float | None) -> None:
        if self._free:
            self._free -= 1
            return
        if len(self._waiting) >= self._waiting_max:
            raise DependencyDown("unkey", f"{len(self._waiting)} questions wait already")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(within_s):
                await turn
        except (asyncio.CancelledError, TimeoutError) as error:
            if turn.cancelled():
                with contextlib.suppress(ValueError):  # it may have been passed over since
                    self._waiting.remove(turn)
            else:
                self._pass_on()  # it had just come
            if isinstance(error, TimeoutError):
                raise DependencyDown("unkey", "other questions are before this one") from None
            raise

    def _pass_on(self) -> None:
        while self._waiting:
            number = self._draw(len(self._waiting))
            self._waiting[number], self._waiting[-1] = self._waiting[-1], self._waiting[number]
            turn = self._waiting.pop()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
