"""Compares the counters of budgets with the ledger, for INV-5. They are in Redis, so they are read separately.

A counter lags behind by what workers have not recounted yet: one that differs is looked at again until it agrees, or a
recount is overdue. Changes nothing.
"""

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

import msgspec

from gateway.audit.reads.snapshot import Offenders
from gateway.kit.errors import DependencyDown
from gateway.limits.budgets import Window
from gateway.limits.counters import LIMITS_REDIS, REDIS, Limits
from gateway.limits.spending import Spending

LOOK_AGAIN_S: Final = 2.0
EXAMPLES_MAX: Final = 10
_window: Final = msgspec.json.Decoder(Window)


class Counted(NamedTuple):
    """What became of the comparison."""

    periods: int
    """Periods of budgets that have a counter."""
    wrong: Offenders
    why_not: str = ""
    """Why they were not compared; empty where they were."""


async def compare(
    limits: Limits, spending: Spending, *, recount_s: float, sleep: Callable[[float], Awaitable[object]]
) -> Counted:
    """Every counter against the ledger. `recount_s`: seconds in which a worker has recounted any of them.

    Raises DependencyDown("postgres"); Redis being away is told.
    """
    try:
        waiting = dict(await limits.windows())
        periods = len(waiting)
        waited_s = 0.0
        while True:
            wrong = {key: told for key, raw in waiting.items() if (told := await _differs(limits, spending, key, raw))}
            if not wrong or waited_s >= recount_s:
                return Counted(periods, Offenders(len(wrong), tuple(wrong.values())[:EXAMPLES_MAX]))
            waiting = {key: waiting[key] for key in wrong}
            await sleep(LOOK_AGAIN_S)
            waited_s += LOOK_AGAIN_S
    except DependencyDown as error:
        if error.what not in (REDIS, LIMITS_REDIS):
            raise
        return Counted(0, Offenders(), f"counters of budgets not compared: {error}")


async def _differs(limits: Limits, spending: Spending, key: str, descriptor: bytes) -> str:
    """What is wrong with one counter; empty when nothing is."""
    try:
        window = _window.decode(descriptor)
    except msgspec.DecodeError:
        return f"{key}: its period cannot be read"
    state = await limits.state(key)
    if state.base is None:
        return ""  # the next call makes it from the ledger
    nano, contained, _ = await spending.read_spent(window, state.under_way)
    counted = state.base + sum(state.settled.values())
    spent = nano + sum(cost for event, cost in state.settled.items() if event not in contained)
    if counted == spent:
        return ""
    return f"{key}: {counted:,} nano-USD counted, {spent:,} spent"
