"""The lock of a data folder: whoever holds it may run servers on it. It only ever reads and writes its own file.

flock belongs to the open file, which the guards inherit, so the lock is free only when the last server of a start
is really gone, even when the process that started them was killed.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from gateway.embedded.errors import AlreadyRunning

NAME: Final = "embedded.lock"
WAIT_S: Final = 30.0
"""Seconds to wait for the servers of a start whose process is gone: their guards are just stopping them."""


def take(data_dir: Path, say: Callable[[str], None]) -> int:
    """The descriptor that holds the lock; close it to let go. Raises AlreadyRunning, OSError."""
    fd = os.open(data_dir / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        deadline, told = time.monotonic() + WAIT_S, False
        while not _try(fd):
            pid = _read_pid(fd)
            if pid is None or _lives(pid) or time.monotonic() > deadline:
                raise AlreadyRunning(data_dir, pid)
            if not told:
                say("waiting for the servers of a start that was killed to stop")
                told = True
            time.sleep(0.05)
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _try(fd: int) -> bool:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _read_pid(fd: int) -> int | None:
    """The pid in the file; None where the holder has not written it yet, or it is not a pid."""
    text = os.pread(fd, 32, 0).strip()
    return int(text) if text.isdigit() else None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
