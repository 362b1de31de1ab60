"""Where the tests' servers listen: addresses of databases on one server, and ports where nobody listens."""

import os
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


def free_port() -> int:
    """A TCP port of loopback that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def on_database(dsn: str, name: str, user: str | None = None) -> str:
    """The same server's DSN for another database, and another login if asked (servers of tests trust everybody)."""
    parts = urlsplit(dsn)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{user or parts.username}@{host}", path=f"/{name}").geturl()
