"""Processes of one host: a parent that starts children, restarts what dies, and takes them all down.

A child is `python -m gateway.processes.child <kind> …`. It holds the read end of a pipe (its stdin) whose other end the
parent holds: over it come its settings, and new secrets later (handed_settings.py); when the parent dies in any way,
the child sees the end and stops. Over another pipe the child says that it is ready, and then once a second how it is
(kit/metrics.py Status).
The parent does no work of its own but to answer /metrics, so there is little in it that could fail.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec
import structlog

from gateway.kit.errors import Expected
from gateway.kit.metrics import Status

READY: Final = b"ready\n"
START_S: Final = 60.0
"""Seconds a child has to say that it is ready."""
STOP_S: Final = 630.0
"""Seconds a child has to stop; longer than a proxy's own drain."""
LEAVE: Final = signal.SIGUSR1
"""To a child that is to stop because another gateway has taken over."""
START_TRIES: Final = 5
RESTART_MIN_S: Final = 0.2
RESTART_MAX_S: Final = 10.0
STEADY_S: Final = 30.0
"""A child that ran this long is restarted without growing patience."""
STATUS_EVERY_S: Final = 1.0
STATUS_BYTES_MAX: Final = 1024 * 1024
_log: Final = structlog.get_logger("gateway.processes")

StatusOf = Callable[[], Status]
Ready = Callable[[StatusOf], None]
"""Called once by a process that is ready, with what will say how it is."""


class Watcher(Protocol):
    """Gets notified about children."""

    def mark_started(self, name: str, pid: int) -> None: ...
    def heard(self, name: str, status: Status) -> None: ...
    def mark_ended(self, name: str) -> None: ...


class ChildFailed(Expected):
    """A child ended before it was ready; the message says which."""


class ChildKilled(ChildFailed):
    """Somebody killed it while it started: it had nothing to say against starting."""


class Child:
    """One child process that is kept running until `stop`."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        env: Mapping[str, str],
        *,
        settings: bytes | None = None,
        log_fd: int | None = None,
        watcher: Watcher | None = None,
        entry: str = "gateway.processes.child",
        listeners: Sequence[socket.socket] = (),
    ) -> None:
        """`settings`: the line that it is handed; without one it reads its environment. `log_fd`: where its standard
        error goes instead of ours. `entry`: the module that it is. `listeners`: on which it accepts; they stay ours, so
        that what waits in their queues waits for its next life.
        """
        self.name: Final = name
        self._watcher: Final = watcher
        self._listening: asyncio.Task[None] | None = None
        self._listeners: Final = [each.fileno() for each in listeners]
        self._arguments: Final = [*arguments, *(part for fd in self._listeners for part in ("--listener", str(fd)))]
        self._env: Final = dict(env)
        self._log_fd: Final = log_fd
        self._entry: Final = entry
        self._settings = settings
        self._stopping = False
        self._keep: asyncio.Task[None] | None = None
        self.process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """Process id, while it runs."""
        return None if self.process is None or self.process.returncode is not None else self.process.pid

    def hand_over(self, settings: bytes) -> None:
        """New settings, for this life of it and for the next ones."""
        self._settings = settings
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.write(settings)

    async def start(self) -> None:
        """Returns when the child is ready; also after a `stop`. Raises ChildFailed."""
        self._stopping = False
        for tries_left in reversed(range(START_TRIES)):
            try:
                await self._spawn()
                break
            except ChildKilled:
                if not tries_left:
                    raise
        self._keep = asyncio.create_task(self._restart())

    async def _spawn(self) -> None:
        reader, writer = os.pipe()
        try:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                self._entry,
                *self._arguments,
                "--ready-fd",
                str(writer),
                *([] if self._settings is None else ["--settings-on-stdin"]),
                env=self._env,
                stdin=asyncio.subprocess.PIPE,
                stderr=self._log_fd,
                pass_fds=(writer, *self._listeners),
            )
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        if self._settings is not None:
            self.hand_over(self._settings)
        ready: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if self._watcher is not None:
            self._watcher.mark_started(self.name, self.process.pid)
        self._listening = asyncio.create_task(self._listen(reader, ready))
        try:
            is_ready = await asyncio.wait_for(asyncio.shield(ready), START_S)
        except TimeoutError:
            is_ready = False
        if not is_ready:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.process.wait(), STATUS_EVERY_S)  # its pipe is closed before it is gone
            killed = (self.process.returncode or 0) < 0
            await self._end()
            raise (ChildKilled if killed else ChildFailed)(f"{self.name} did not start")

    async def _listen(self, fd: int, ready: "asyncio.Future[bool]") -> None:
        """Everything the child says of itself, until it ends; the fd is closed in every case. What does not read is
        skipped: a child of which nothing is heard for long is shown as such."""
        loop = asyncio.get_running_loop()
        with os.fdopen(fd, "rb") as file:
            lines = asyncio.StreamReader(limit=STATUS_BYTES_MAX)
            transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), file)
            try:
                while line := await _next_line(lines):
                    if not ready.done():
                        ready.set_result(line == READY)
                    elif self._watcher is not None and line.endswith(b"\n"):
                        try:
                            status = msgspec.json.decode(line, type=Status)
                        except msgspec.DecodeError:
                            _log.error("status does not read", child=self.name)
                            continue
                        self._watcher.heard(self.name, status)
            finally:
                transport.close()
                if not ready.done():
                    ready.set_result(False)
                if self._watcher is not None:
                    self._watcher.mark_ended(self.name)

    async def _restart(self) -> None:
        patience_s = RESTART_MIN_S
        while True:
            begun = time.monotonic()
            assert self.process is not None
            code = await self.process.wait()
            if self._is_stopping():
                return
            patience_s = RESTART_MIN_S if time.monotonic() - begun > STEADY_S else min(RESTART_MAX_S, patience_s * 2)
            _log.error("child died, restarting", child=self.name, code=code, wait_s=patience_s)
            await asyncio.sleep(patience_s)
            try:
                await self._spawn()
            except ChildFailed:
                continue
            except Exception as error:  # noqa: BLE001  # no process, no file left: whatever it is, it is tried again
                _log.error("child not started", child=self.name, error=type(error).__name__)

    def _is_stopping(self) -> bool:
        return self._stopping

    async def stop(self, number: signal.Signals = signal.SIGTERM, within_s: float = STOP_S) -> None:
        """SIGTERM or `number`, then patience, then SIGKILL."""
        self._stopping = True
        await self._end(number, within_s)
        if self._keep is not None:
            self._keep.cancel()
            await asyncio.gather(self._keep, return_exceptions=True)
        if self._listening is not None:
            # Its last counts are still in the pipe.
            await asyncio.wait({self._listening}, timeout=STATUS_EVERY_S)

    async def _end(self, number: signal.Signals = signal.SIGTERM, within_s: float = STOP_S) -> None:
        process = self.process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        try:
            await asyncio.wait_for(process.wait(), within_s)
        except TimeoutError:
            process.kill()
            await process.wait()


async def _next_line(lines: asyncio.StreamReader) -> bytes:
    """The next line, b"" at the end; one that is too long is skipped."""
    while True:
        try:
            return await lines.readline()
        except ValueError:
            _log.error("a child's status is too long")


def listen(host: str, port: int) -> socket.socket:
    """A bound socket that several processes may share by SO_REUSEPORT; the kernel spreads connections over them."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


def probe(host: str, port: int) -> None:
    """Raises OSError when somebody listens on `port`, also one who would share it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        trial.bind((host, port))
        trial.listen(1)


def stop_on_signals(stop: asyncio.Event) -> None:
    """SIGTERM and SIGINT set `stop`."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


async def run_until_stopped(work: Coroutine[Any, Any, None], stop: asyncio.Event, said: Callable[[], None]) -> bool:
    """Runs `work`; when `stop` is set first, calls `said` and cancels it. Whether it came to its end by itself."""
    task = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if task.done():
        await task
        return True
    said()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return False
