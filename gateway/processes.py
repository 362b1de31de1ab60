"""Processes of one host: a parent that starts children, restarts what dies, and takes them all down.

A child is `python -m gateway.child <kind> …`, configured by its environment alone. It holds the read end of a
pipe (its stdin) whose other end the parent holds: when the parent dies in any way, the child sees the end and
stops. The parent does no work of its own, so there is little in it that could fail.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import structlog

READY: Final = b"ready\n"
START_S: Final = 60.0
"""Seconds a child has to say that it is ready."""
STOP_S: Final = 630.0
"""Seconds a child has to stop; longer than a proxy's own drain."""
RESTART_MIN_S: Final = 0.2
RESTART_MAX_S: Final = 10.0
STEADY_S: Final = 30.0
"""A child that ran this long is restarted without growing patience."""
_log: Final = structlog.get_logger("gateway.processes")


class ChildFailed(Exception):
    """A child ended before it was ready; the message says which."""


class Child:
    """One child process that is kept running until `stop`."""

    def __init__(
        self, name: str, arguments: Sequence[str], env: Mapping[str, str], *, log_fd: int | None = None
    ) -> None:
        """`log_fd`: where its standard error goes instead of ours."""
        self.name: Final = name
        self._arguments: Final = arguments
        self._env: Final = dict(env)
        self._log_fd: Final = log_fd
        self._stopping = False
        self._keep: asyncio.Task[None] | None = None
        self.process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """Process id, while it runs."""
        return None if self.process is None or self.process.returncode is not None else self.process.pid

    async def start(self) -> None:
        """Returns when the child is ready. Raises ChildFailed."""
        await self._spawn()
        self._keep = asyncio.create_task(self._restart())

    async def _spawn(self) -> None:
        reader, writer = os.pipe()
        try:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "gateway.child",
                *self._arguments,
                "--ready-fd",
                str(writer),
                env=self._env,
                stdin=asyncio.subprocess.PIPE,
                stderr=self._log_fd,
                pass_fds=(writer,),
            )
        finally:
            os.close(writer)
        try:
            said = await asyncio.wait_for(_read_all(reader), START_S)
        except TimeoutError:
            said = b""
        if said != READY:
            await self._end()
            raise ChildFailed(f"{self.name} did not start")

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
            with contextlib.suppress(ChildFailed):
                await self._spawn()

    def _is_stopping(self) -> bool:
        return self._stopping

    async def stop(self) -> None:
        """SIGTERM, then patience, then SIGKILL."""
        self._stopping = True
        await self._end()
        if self._keep is not None:
            self._keep.cancel()
            await asyncio.gather(self._keep, return_exceptions=True)

    async def _end(self) -> None:
        process = self.process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), STOP_S)
        except TimeoutError:
            process.kill()
            await process.wait()


async def _read_all(fd: int) -> bytes:
    """Everything until the other side closes; the fd is closed in every case."""
    loop = asyncio.get_running_loop()
    with os.fdopen(fd, "rb") as file:
        reader = asyncio.StreamReader()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), file)
        try:
            return await reader.read()
        finally:
            transport.close()


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


def say_ready(fd: int) -> Callable[[], None]:
    """A callback that tells the parent once."""

    def ready() -> None:
        os.write(fd, READY)
        os.close(fd)

    return ready
