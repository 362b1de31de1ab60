"""Keeps what is in this process's memory from other programs of the same user. On Linux; elsewhere it does nothing."""

import ctypes
import os
import sys
from typing import Final

_PR_GET_DUMPABLE: Final = 3
_PR_SET_DUMPABLE: Final = 4
"""linux/prctl.h."""


def forbid_dumps() -> None:
    """No core dump, and no look into /proc/PID/mem or /proc/PID/environ without CAP_SYS_PTRACE. A program that is
    started by this one has to ask for it again."""
    if sys.platform == "linux":
        _prctl(_PR_SET_DUMPABLE)


def are_dumps_forbidden() -> bool:
    """Whether that holds for this process now."""
    return sys.platform == "linux" and _prctl(_PR_GET_DUMPABLE) == 0


def _prctl(option: int) -> int:
    answer: int = ctypes.CDLL(None, use_errno=True).prctl(option, 0, 0, 0, 0)
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return answer
