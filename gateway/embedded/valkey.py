"""How to run Valkey on a folder: settings, readiness. Starts nothing itself."""

import signal
import socket
import time
from pathlib import Path
from typing import Final
from urllib.parse import quote

from gateway.embedded import binaries
from gateway.embedded.errors import EmbeddedError
from gateway.embedded.location import ServerLocation, socket_folder
from gateway.embedded.server import Recipe

SOCKET: Final = "valkey.sock"
STOP_S: Final = 30.0


def recipe(location: ServerLocation, data_dir: Path, *, fsync: bool) -> Recipe:
    """Prepares the folder `valkey` and says how to run a server on it. Raises EmbeddedError."""
    program = location.program(binaries.find_valkey()).path
    home = location.own_folder("valkey")
    path = socket_folder(location, data_dir, home, SOCKET) / SOCKET
    _await_silence(path)
    options = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "dir": str(home),
        "save": "",
        "appendonly": "yes" if fsync else "no",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }
    return Recipe(
        name="valkey",
        command=[program, *(word for name, value in options.items() for word in (f"--{name}", value))],
        cwd=home,
        env={},
        is_ready=lambda _pid: _answer(path).startswith(b"+PONG"),
        stop_signal=signal.SIGTERM,
        grace_s=STOP_S,
        url=f"unix://{quote(str(path), safe='/')}?db=0",
    )


def _await_silence(path: Path) -> None:
    """Valkey, unlike PostgreSQL, would start beside another one on the same files, and spoil them."""
    deadline = time.monotonic() + STOP_S
    while _answer(path):
        if time.monotonic() > deadline:  # one whose guard was killed stops by itself
            raise EmbeddedError(f"A Valkey that was not started from here answers on {path}.")
        time.sleep(0.05)


def _answer(path: Path) -> bytes:
    """The beginning of the answer to a PING; empty when nobody listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(1)
        try:
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return connection.recv(64)
        except TimeoutError:
            return b"-SILENT"  # it listens, and is busy
        except OSError:
            return b""
