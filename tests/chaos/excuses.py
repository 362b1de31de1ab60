"""Which fault excuses which error of a client. Whatever has no excuse is a breach: calls go on through most faults."""

import time
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

RESTART_S: Final = 30.0
"""Seconds in which a process that was killed is there again: its parent's patience grows with each kill."""
AFTERMATH_S: Final = 10.0
"""Seconds after which a store that is back has been noticed: a connection that hung gives up."""

EXCUSED: Final[Mapping[str, tuple[str, ...]]] = {
    "refused": ("kill proxy", "kill parent"),
    "cut": ("kill proxy", "kill parent", "wire openai"),
    "502": ("wire openai",),
    "504": ("wire openai",),
    # A proxy that has just started knows no key yet, and asks PostgreSQL whose it is; owners of answers are in Redis.
    "503": ("kill postgres", "hang postgres", "wire postgres", "kill valkey", "hang valkey", "wire valkey"),
}
"""Errors by kind, and the faults during which they may happen."""


class Fault(NamedTuple):
    """One fault, while it lasts. Monotonic seconds."""

    name: str
    begun_s: float
    until_s: float
    """When nothing of it is left to notice."""


class Excuses:
    """All faults of a run."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock: Final = clock
        self._faults: Final[list[Fault]] = []

    def add(self, name: str, seconds: float) -> None:
        """A fault that begins now and lasts so long."""
        aftermath = RESTART_S if name.startswith(("kill proxy", "kill parent")) else seconds + AFTERMATH_S
        self._faults.append(Fault(name, self._clock(), self._clock() + aftermath))

    def explain(self, error: str, begun_s: float) -> bool:
        """Whether an error that was met just now, by a call begun then, has its fault."""
        kinds, now = EXCUSED.get(error, ()), self._clock()
        return any(fault.name in kinds and begun_s <= fault.until_s and fault.begun_s <= now for fault in self._faults)
