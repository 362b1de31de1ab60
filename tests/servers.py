"""Where the tests' servers listen: addresses of databases on one server, and ports where nobody listens."""

import socket
from urllib.parse import urlsplit


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
