"""Which fault excuses which error of a client. Whatever has no excuse is a breach: calls go on through most faults."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

AFTERMATH_S: Final = 10.0
"""Seconds after which whatever is back has been noticed: a connection that hung gives up."""

EXCUSED: Final[Mapping[str, tuple[str, ...]]] = {
    "refused": ("kill proxy", "kill parent", "kill host", "lose host"),
    "cut": ("kill proxy", "kill parent", "kill host", "lose host", "wire openai"),
    "502": ("wire openai",),
    "504": ("wire openai",),
    # A proxy that has just started knows no key yet, and asks PostgreSQL whose it is; owners of answers are in Redis.
    "503": tuple(
        f"{verb} {store}" for verb in ("kill", "hang", "wire", "failover") for store in ("postgres", "valkey")
    ),
}
"""Errors by kind, and the faults during which they may happen."""


@dataclass
class Fault:
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

    def add(self, name: str) -> None:
        """A fault of this instant."""
        self._faults.append(Fault(name, self._clock(), self._clock() + AFTERMATH_S))

    @contextlib.contextmanager
    def lasting(self, name: str) -> Iterator[None]:
        """A fault that lasts as long as the context."""
        fault = Fault(name, self._clock(), math.inf)
        self._faults.append(fault)
        try:
            yield
        finally:
            fault.until_s = self._clock() + AFTERMATH_S

    def explain(self, error: str, begun_s: float) -> bool:
        """Whether an error that was met just now, by a call begun then, has its fault."""
        kinds, now = EXCUSED.get(error, ()), self._clock()
        return any(fault.name in kinds and begun_s <= fault.until_s and fault.begun_s <= now for fault in self._faults)
