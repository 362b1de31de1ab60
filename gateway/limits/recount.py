"""Recount: the counters of budgets are made from the ledger again, over and over.

What a counter says is the ledger's sum plus what was settled since and is not in that sum. So a hold whose proxy died
goes when the swept call has its row, one that was kept for a call of unknown cost when a correction has come; an
adjustment counts, and losing all of Redis costs nothing but a look. Must not refuse or let in a call: that is the
proxy's.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import msgspec
import structlog

from gateway.limits.budgets import Window
from gateway.limits.counters import KEPT, QUIET_TURN, TURN, Limits
from gateway.limits.spending import Spending

QUIET_PASSES: Final = 12
"""A period in which nothing is under way is looked at once in so many passes, whoever makes them: adjustments come
late, and rarely."""
OVER_S: Final = 3600.0
"""Seconds after its end at which a period is forgotten, when nothing of it is under way."""
_log: Final = structlog.get_logger("gateway.recount")
_window: Final = msgspec.json.Decoder(Window)


class Recount:
    """One per worker; any number may run. They take turns: what a pass asks of the ledger does not grow with them."""

    def __init__(
        self, limits: Limits, spending: Spending, *, now: Callable[[], datetime], turn_s: float | None = None
    ) -> None:
        """`turn_s`: seconds from the beginning of a pass to that of the next one, whoever's it is; None: no turns."""
        self._turn_s: Final = turn_s
        self._limits: Final = limits
        self._spending: Final = spending
        self._now: Final = now
        self._passes = 0
        self._looks_at_quiet: bool | None = None
        """Of the pass that has begun and not ended; None: there is none."""

    async def step_once(self) -> int:
        """One pass over all periods that have counters, in this worker's turn. How many were recounted. Raises
        DependencyDown; then the turn is still this worker's."""
        if self._looks_at_quiet is None:
            self._looks_at_quiet = await self._begin_pass()
        if self._looks_at_quiet is None:
            return 0
        recounted = 0
        for key, descriptor in (await self._limits.windows()).items():
            try:
                window = _window.decode(descriptor)
            except msgspec.DecodeError:
                _log.error("a budget's period makes no sense and is dropped", key=key)
                await self._limits.forget(key)
                continue
            recounted += await self._recount(key, window, every=self._looks_at_quiet)
        self._looks_at_quiet = None
        return recounted

    async def _begin_pass(self) -> bool | None:
        """Whether the pass looks at quiet periods too; None where it is not this worker's turn."""
        if self._turn_s is None:
            self._passes += 1
            return self._passes % QUIET_PASSES == 1
        if not await self._limits.take_turn(TURN, self._turn_s):
            return None
        return await self._limits.take_turn(QUIET_TURN, self._turn_s * QUIET_PASSES)

    async def _recount(self, key: str, window: Window, *, every: bool) -> bool:
        state = await self._limits.state(key)
        under_way = [*state.settled, *state.held]
        if not under_way and (state.base is None or self._is_over(window)):
            await self._limits.forget(key)
            return False
        if not under_way and not every:
            return False
        if not under_way and not await self._spending.is_current(window):
            await self._limits.forget(key)
            return False
        nano, contained, corrected = await self._spending.read_spent(window, state.under_way, state.kept)
        known = [*contained, *(f"{KEPT}{event}" for event in corrected)]
        return await self._limits.recount(key, state, nano, known)

    def _is_over(self, window: Window) -> bool:
        return window.end is not None and self._now() > window.end + timedelta(seconds=OVER_S)
