"""Where the tests' servers listen: addresses of databases on one server, and ports where nobody listens."""

import contextlib
import os
import random
import socket
from pathlib import Path
from urllib.parse import urlsplit

MEMORY = Path("/dev/shm")
MEMORY_BYTES_MIN = 2 * 1024**3


def memory_folder() -> Path | None:
    """A place in memory for the servers' files, where there is one: databases are made ten times faster there."""
    if not os.access(MEMORY, os.W_OK | os.X_OK):
        return None
    room = os.statvfs(MEMORY)
    # The servers' programs may be copied beside their data, so they must be allowed to run from there.
    fits = room.f_bavail * room.f_frsize >= MEMORY_BYTES_MIN and not room.f_flag & os.ST_NOEXEC
    return MEMORY if fits else None


PORTS = range(15_000, 32_000)
"""Below those that the system gives to connections going out: one of them would take a port before its server does."""


def free_port() -> int:
    """A TCP port of loopback that nobody has right now, and that no outgoing connection will get."""
    return free_ports(1)


def free_ports(count: int) -> int:
    """The first of so many such ports in a row."""
    while True:
        first = random.choice(PORTS[: 1 - count or None])
        with contextlib.ExitStack() as probes, contextlib.suppress(OSError):
            for port in range(first, first + count):
                probes.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first


def on_database(dsn: str, name: str, user: str | None = None) -> str:
    """The same server's DSN for another database, and another login if asked (servers of tests trust everybody)."""
    parts = urlsplit(dsn)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{user or parts.username}@{host}", path=f"/{name}").geturl()
