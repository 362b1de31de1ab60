"""One running server under its guard: start, wait until it answers, stop. Independent of the kind of server."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from gateway.embedded.errors import EmbeddedError
from gateway.embedded.location import ServerLocation, server_env

START_S: Final = 120.0
"""Seconds a server has to answer; recovery after a crash can take a while."""
POLL_S: Final = 0.02
LOG_TAIL: Final = 2000
"""Bytes of a server's log that are shown when it fails."""
_GUARD: Final = Path(__file__).with_name("guard.py")


class Recipe(NamedTuple):
    """How to run one server."""

    name: str
    """`postgres` or `valkey`; its log is `<name>.log`."""
    command: Sequence[str | Path]
    cwd: Path
    env: Mapping[str, str]
    """On top of the little that every server gets."""
    is_ready: Callable[[int], bool]
    """Told the server's pid; whether it answers."""
    stop_signal: int
    """What makes it stop cleanly at once, clients or not."""
    grace_s: float
    """Seconds a clean stop may take before the guard insists."""
    url: str


class RunningServer:
    """A server that runs. Only `run` makes one."""

    def __init__(self, recipe: Recipe, guard: "subprocess.Popen[bytes]", pid: int, log: Path) -> None:
        self.name: Final = recipe.name
        self.url: Final = recipe.url
        self.pid: Final = pid
        self._guard: Final = guard
        self._log: Final = log
        self._stop_max_s: Final = recipe.grace_s + 30

    def failure(self) -> str | None:
        """Why it has ended by itself, with the end of its log; None while it runs."""
        if self._guard.poll() is None:
            return None
        return f"{self.name} has ended (status {self._guard.returncode}). The end of {self._log}:\n{_tail(self._log)}"

    def release(self) -> None:
        """Tells the guard to stop the server; does not wait."""
        if self._guard.stdin is not None:
            self._guard.stdin.close()

    def stop(self) -> None:
        """Stops the server and waits for it; again does nothing. Raises EmbeddedError when it does not end."""
        self.release()
        try:
            self._guard.wait(self._stop_max_s)
        except subprocess.TimeoutExpired:
            raise EmbeddedError(f"{self.name} (process {self.pid}) does not stop.") from None
        if self._guard.stdout is not None:
            self._guard.stdout.close()


def run(recipe: Recipe, location: ServerLocation, lock_fd: int, abort: threading.Event) -> RunningServer:
    """Starts the server and waits until it answers. Raises EmbeddedError with the end of its log.

    `abort`, set from another thread, ends the waiting.
    """
    log = location.folder / f"{recipe.name}.log"
    with contextlib.suppress(FileNotFoundError):
        log.rename(log.with_suffix(".log.1"))
    user = location.user
    identity = ("-1", "-1") if user is None else (str(user.uid), str(user.gid))
    guard: list[str | Path] = [
        sys.executable,
        "-I",
        "-S",
        _GUARD,
        str(recipe.stop_signal),
        str(recipe.grace_s),
        *identity,
    ]
    log_fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        process = subprocess.Popen(  # noqa: S603  (programs of our own)
            [*guard, *recipe.command],
            cwd=recipe.cwd,
            env={**server_env(), **recipe.env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log_fd,
            pass_fds=(lock_fd,),
            start_new_session=True,
        )
    finally:
        os.close(log_fd)
    line = b"" if process.stdout is None else process.stdout.readline()
    server = RunningServer(recipe, process, int(line or -1), log)
    try:
        _await_ready(server, recipe, abort)
    except BaseException:
        server.stop()
        raise
    return server


def _await_ready(server: RunningServer, recipe: Recipe, abort: threading.Event) -> None:
    deadline = time.monotonic() + START_S
    while (failure := server.failure()) is None:
        if recipe.is_ready(server.pid):
            return
        if time.monotonic() > deadline:
            raise EmbeddedError(f"{server.name} does not answer after {START_S:.0f} s.")
        if abort.wait(POLL_S):
            raise EmbeddedError("stopped while starting")
    raise EmbeddedError(failure)


def _tail(log: Path) -> str:
    with contextlib.suppress(FileNotFoundError):
        return log.read_bytes()[-LOG_TAIL:].decode(errors="replace").strip()
    return "(no log)"
