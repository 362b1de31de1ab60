"""The exit status of a stop that leaves calls on the disk."""

from typing import Final

from gateway.kit.errors import Expected

CALLS_STAY: Final = 75
"""EX_TEMPFAIL of sysexits.h: nothing is lost or wrong, and the work is to be finished later. Neither Python, a shell, a
container runtime nor anything else here ends with it; `serve` does only after somebody has stopped it, so a supervisor
that starts it again has no loop: the new one finishes the work."""


class CallsStay(Expected):
    """The keeper was stopped, and calls are on its disk that PostgreSQL does not have."""
