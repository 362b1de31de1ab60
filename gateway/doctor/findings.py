"""What a check of `gateway doctor` finds, and the words that several checks share."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Final, Literal, NamedTuple

from gateway.config.settings import Settings

SKEW_S: Final = 2.0
"""Seconds by which another clock may differ from ours before it is worth a word."""
SKEW_BAD_S: Final = 60.0

Level = Literal["ok", "warn", "fail"]
"""`fail`: a call could not be metered. `warn`: something else deserves a look."""


class CheckResult(NamedTuple):
    """What one check found; `fix` is empty when there is nothing to do."""

    what: str
    level: Level
    says: str
    fix: str = ""


Check = Callable[[Settings, AsyncExitStack], Awaitable[list[CheckResult]]]


def skew(what: str, theirs_s: float, ours_s: float, within_s: float = 0.0) -> list[CheckResult]:
    """A clock that differs from ours. `within_s`: how long the asking took, seconds."""
    apart = abs(theirs_s - ours_s) - within_s
    if apart <= SKEW_S:
        return []
    worse = ": windows and prices may be wrong" if apart > SKEW_BAD_S else ""
    says = f"its clock and this host's are {apart:.0f} s apart{worse}"
    return [CheckResult(what, "warn", says, "set both by NTP; times in the ledger are this host's")]


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} TB"
