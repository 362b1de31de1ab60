"""The time of the Stripe stand-in, which a test may move ahead so that billing periods end without waiting.

Like Stripe's own test clocks it never goes back (Stripe's docs, test clocks: a clock can only be advanced).
"""

import heapq
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple


class MovedClock:
    """Unix seconds: the time that runs outside, plus what a test has added; or frozen at one instant."""

    def __init__(self, outside: Callable[[], float]) -> None:
        self._outside: Final = outside
        self._ahead_s = 0
        self._frozen: int | None = None
        self._pinned: int | None = None

    def now(self) -> int:
        """The present instant; while something that fell due is done, the instant at which it fell due."""
        return self.latest() if self._pinned is None else self._pinned

    def latest(self) -> int:
        """The present instant, whatever is being done."""
        return int(self._outside()) + self._ahead_s if self._frozen is None else self._frozen

    @property
    def ahead_s(self) -> int:
        """What has been added."""
        return self.latest() - int(self._outside())

    def set_ahead(self, seconds: int) -> None:
        """As a former run had it."""
        self._ahead_s, self._frozen = seconds, None

    def move_to(self, instant: int, *, is_frozen: bool) -> None:
        """It is `instant` now, and stays so when frozen. Raises ValueError for one in the past."""
        if instant < self.latest():
            raise ValueError(f"the clock only goes ahead: it is {self.latest()} already")
        self._ahead_s = instant - int(self._outside())
        self._frozen = instant if is_frozen else None

    @contextmanager
    def at(self, instant: int) -> Iterator[None]:
        """Within it, it is `instant`."""
        before, self._pinned = self._pinned, instant
        try:
            yield
        finally:
            self._pinned = before


class Due(NamedTuple):
    """Something to be done at an instant, unless it has been overtaken by then."""

    at: int
    number: int
    """Of the order in which it was planned."""
    action: str
    object_id: str


class Agenda:
    """What falls due, in order of time."""

    def __init__(self) -> None:
        self._heap: Final[list[Due]] = []
        self._planned = 0

    def plan(self, at: int, action: str, object_id: str) -> None:
        """`action` falls due for the object."""
        self._planned += 1
        heapq.heappush(self._heap, Due(at, self._planned, action, object_id))

    def take_due(self, now: int) -> Due | None:
        """The next one that has fallen due."""
        return heapq.heappop(self._heap) if self._heap and self._heap[0].at <= now else None
