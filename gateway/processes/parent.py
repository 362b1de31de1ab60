"""The parent, as one of its children talks to it. The other end is `processes.Child`."""

import asyncio
import contextlib
import os
import signal
from typing import Final

import msgspec

from gateway.kit.metrics import Status
from gateway.processes.supervisor import READY, STATUS_EVERY_S, StatusOf
from gateway.processes.vitals import Reporter


def stop_with_parent(stop: asyncio.Event) -> None:
    """SIGTERM and the end of stdin (the parent is gone) set `stop`; Ctrl-C is the parent's to hear, and to pass on in
    its order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    loop = asyncio.get_running_loop()

    def readable() -> None:
        if not os.read(0, 4096):
            loop.remove_reader(0)
            stop.set()

    os.set_blocking(0, False)
    loop.add_reader(0, readable)


class Parent:
    """One per process."""

    def __init__(self, fd: int) -> None:
        """`fd`: the writing end of its pipe."""
        self._fd: Final = fd
        self._reporter: Reporter | None = None
        self._unsent = b""

    def ready(self, status_of: StatusOf) -> None:
        """Says so, and from now on says how this process is."""
        os.write(self._fd, READY)
        os.set_blocking(self._fd, False)
        self._reporter = Reporter(status_of, self._write, every_s=STATUS_EVERY_S)
        self._reporter.start()

    def _write(self, status: Status) -> None:
        if not self._unsent:
            self._unsent = msgspec.json.encode(status) + b"\n"
        # A parent that does not read loses nothing but freshness; one that is gone is told by stdin.
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            self._unsent = self._unsent[os.write(self._fd, self._unsent) :]

    def close(self) -> None:
        """The last counts of a process that ends."""
        if self._reporter is not None:
            self._reporter.close()
            for _ in range(2):  # the rest of a line that was cut, then the last one
                self._reporter.say()
        os.close(self._fd)
