"""How many files and connections a process may have open: as many as the system lets it have."""

import contextlib
import resource
from typing import Final

MANY: Final = 1024 * 1024
"""Taken for no limit at all."""


def raise_file_limit() -> int:
    """The number, after the soft limit, which is low for the sake of old programs, was raised to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):  # macOS says that there is no limit, and has one
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return MANY if soft == resource.RLIM_INFINITY else soft
