"""A PostgreSQL connection string: whether it leads to a transaction pooler. Pure.

Supabase's listens on port 6543; any other PgBouncer is told by `?pgbouncer=true` (as Supabase's and Prisma's own
strings say it), which PostgreSQL itself does not know.
"""

from typing import Final, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

SUPABASE_POOLER_PORT: Final = 6543
_ON: Final = ("1", "on", "true", "yes")


class Dsn(NamedTuple):
    """Where to connect, and how."""

    url: str
    """Without what only a pooler knows."""
    pooled: bool
    """Whether sessions are shared between clients: no prepared statements, no session settings."""


def read_dsn(url: str) -> Dsn:
    """Never raises: a string that is no URL is its driver's to judge."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return Dsn(url, pooled=False)
    options = parse_qsl(parts.query, keep_blank_values=True)
    said = [value.lower() for name, value in options if name == "pgbouncer"]
    pooled = said[-1] in _ON if said else port == SUPABASE_POOLER_PORT
    if not said:
        return Dsn(url, pooled)
    kept = urlencode([(name, value) for name, value in options if name != "pgbouncer"])
    return Dsn(urlunsplit(parts._replace(query=kept)), pooled)
