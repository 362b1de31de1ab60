"""A circuit breaker for Unkey: open after failures in a row, half-open for one probe, closed by an answer.

Keys that are known go on in their stale time, others get 503 at once. The while is drawn anew each time, so that the
proxies of many hosts do not come back together. Where Unkey itself says how long to wait (its 429), it is that long.
"""

import math
from collections.abc import Callable
from typing import Final

import structlog

from gateway.keys.verify import AskedTooOften
from gateway.kit.errors import DependencyDown

FAILURES: Final = 5
"""Failures in a row after which the circuit opens."""
OPEN_S: Final = (1.0, 5.0)
"""Shortest and longest while, seconds."""
_log: Final = structlog.get_logger("gateway.proxy")


class Breaker:
    """One per process."""

    def __init__(self, *, monotonic: Callable[[], float], uniform: Callable[[float, float], float]) -> None:
        """`uniform` draws a number between two others."""
        self._monotonic: Final = monotonic
        self._uniform: Final = uniform
        self._failures = 0
        self._until_s = 0.0
        self._trying = False
        self._held_until_s = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the circuit is open."""
        return self._failures >= FAILURES

    def enter(self) -> None:
        """Call before each request. Raises DependencyDown while the circuit is open, AskedTooOften during a requested
        pause."""
        held_s = self._held_until_s - self._monotonic()
        if held_s > 0:
            raise AskedTooOften(math.ceil(held_s))
        if self._failures < FAILURES:
            return
        if self._trying or self._monotonic() < self._until_s:
            raise DependencyDown("unkey", f"circuit open after {FAILURES} failures in a row")
        self._trying = True

    def record_success(self) -> None:
        """An answer came, whatever its content."""
        if self.is_open:
            _log.warning("unkey circuit closed")
        self._failures, self._trying = 0, False

    def pause(self, seconds: float) -> None:
        """Unkey answered with a request to wait this long: not a failure."""
        self.record_success()
        self._held_until_s = self._monotonic() + seconds

    def record_failure(self) -> None:
        """No answer came, or an unreadable one."""
        tried, self._trying = self._trying, False
        if self.is_open and not tried:
            return  # it was sent before
        self._failures = min(self._failures + 1, FAILURES)
        if self.is_open:
            open_s = self._uniform(*OPEN_S)
            self._until_s = self._monotonic() + open_s
            if not tried:
                _log.error("unkey circuit opened", failures=FAILURES, seconds=round(open_s, 1))
