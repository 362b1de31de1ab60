"""The parent, as one of its children talks to it. The other end is `processes.Child`."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from typing import Final

import msgspec

from gateway.kit.metrics import Status
from gateway.processes.handed_settings import PIECE_BYTES, STDIN, HandedLines
from gateway.processes.supervisor import LEAVE, READY, STATUS_EVERY_S, StatusOf
from gateway.processes.vitals import Reporter


def hear_parent(stop: asyncio.Event, leave: asyncio.Event, lines: HandedLines, take: Callable[[bytes], None]) -> None:
    """SIGTERM and the end of stdin (the parent is gone) set `stop`; a line there is for `take`. SIGUSR1 sets `leave`
    as well, until SIGTERM. Ctrl-C and SIGHUP are the parent's to hear, and to pass on in its order."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    loop = asyncio.get_running_loop()

    def leaves() -> None:
        leave.set()
        stop.set()

    def stops() -> None:
        leave.clear()
        stop.set()

    loop.add_signal_handler(LEAVE, leaves)
    loop.add_signal_handler(signal.SIGTERM, stops)

    def readable() -> None:
        piece = os.read(STDIN, PIECE_BYTES)
        for line in lines.take(piece):
            take(line)
        if not piece:
            loop.remove_reader(STDIN)
            stop.set()

    for line in lines.take(b""):
        take(line)
    os.set_blocking(STDIN, False)
    loop.add_reader(STDIN, readable)


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
