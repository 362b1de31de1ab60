"""What every kind of process says of itself beside its own figures, and how it says it once a second."""

import asyncio
import os
import resource
import sys
import time
from collections.abc import Callable
from functools import cache
from typing import Final

import structlog

from gateway.kit.metrics import Sample, Status

_PAGE: Final = resource.getpagesize()
_STATM_BYTES: Final = 256
_log: Final = structlog.get_logger("gateway.status")


@cache
def _statm() -> int:
    """Opened once and kept: a process at its limit of open files must still be able to say how it is."""
    return os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)


def samples(name: str) -> tuple[Sample, ...]:
    """CPU time, seconds; memory, bytes; descriptors."""
    used = (Sample("gateway_process_cpu_seconds_total", (name,), round(time.process_time(), 3)),)
    if sys.platform != "linux":
        return used
    resident = int(os.pread(_statm(), _STATM_BYTES, 0).split()[1]) * _PAGE
    files_max = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return (
        *used,
        Sample("gateway_process_resident_bytes", (name,), resident),
        Sample("gateway_process_files", (name,), _files(files_max)),
        Sample("gateway_process_files_max", (name,), files_max),
    )


def _files(files_max: int) -> int:
    """Open descriptors."""
    if count := os.stat("/proc/self/fd").st_size:  # since Linux 6.2; takes none itself
        return count
    try:
        return len(os.listdir("/proc/self/fd")) - 1
    except OSError:  # there is none to look with
        return files_max


class Reporter:
    """Says how this process is, at once and then every so many seconds, until it is closed. No error ends that."""

    def __init__(self, status_of: Callable[[], Status], tell: Callable[[Status], None], *, every_s: float) -> None:
        self._status_of: Final = status_of
        self._tell: Final = tell
        self._every_s: Final = every_s
        self._last = Status()
        self._failure: str | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """From now on."""
        try:
            self.say()
        finally:
            self._timer = asyncio.get_running_loop().call_later(self._every_s, self.start)

    def say(self) -> None:
        """Once more, now."""
        self._tell(self._read())

    def close(self) -> None:
        """No more."""
        if self._timer is not None:
            self._timer.cancel()

    def _read(self) -> Status:
        """A status that cannot be read is itself a failure to show; the counts are the last that were read."""
        try:
            status = self._last = self._status_of()
        except Exception as error:  # noqa: BLE001  # the watcher of this process must see every failure
            failure = f"its status cannot be read ({type(error).__name__})"
            if failure != self._failure:
                _log.error("status cannot be read", error=type(error).__name__)
            self._failure = failure
            return Status(failure, self._last.waiting, self._last.samples)
        self._failure = None
        return status
