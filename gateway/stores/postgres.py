"""Connections to PostgreSQL. Must not hold one at module level; whoever opens a pool closes it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from gateway.config.dsn import read_dsn
from gateway.kit.errors import DependencyDown, Refused
from gateway.stores import postgres_connections as connections

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]
    Connection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record] | asyncpg.Connection[asyncpg.Record]
else:
    Pool = asyncpg.Pool
    Connection = Any

AWAY: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What asyncpg raises when the database is away, full, out of time or not migrated; a bad value is handled first.

TimeoutError is an OSError. Whatever it was, the caller cannot fix it: it waits and tries again.
"""


REFUSES: Final = (
    connections.Unfit,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
)
"""A wrong user or password, no such database, a login without the right."""


async def open_pool(
    dsn: str,
    *,
    connections_min: int = 1,
    connections_max: int = 4,
    statement_timeout_s: float = 30.0,
    connect_timeout_s: float = 5.0,
) -> Pool:
    """A pool of at most `connections_max` connections. Raises DependencyDown("postgres") when the first
    `connections_min` cannot be made; with 0 a database that is away is met at the first question.

    Behind a transaction pooler (config/dsn.py) sessions are shared between clients: no named prepared statements, no
    session settings (Supabase's docs); the client's own timer still holds. An unnamed one is safe
    there: asyncpg ends what prepares it with Flush, not Sync, so the pooler keeps the server until the query is done.
    """
    found = read_dsn(dsn)
    settings = {
        "application_name": "pailflow-gateway",
        # A role or database may say otherwise; then writers that share a sum would fail each other, over and over.
        "default_transaction_isolation": "read committed",
        "jit": "off",
        "statement_timeout": str(int(statement_timeout_s * 1000)),
        "timezone": "UTC",
    }
    watch = connections.Watch()
    with told_apart():
        watch.pool = asyncpg.create_pool(
            found.url,
            **found.tls,
            min_size=connections_min,
            max_size=connections_max,
            timeout=found.connect_timeout_s or connect_timeout_s,
            command_timeout=statement_timeout_s + 1,  # the server's own timer goes first: it says more
            statement_cache_size=0 if found.pooled else 100,
            server_settings={"application_name": "pailflow-gateway"} if found.pooled else settings,
            reset=_leave_as_is,
            connect=connections.connect,
            connection_class=connections.Connection,
            init=watch.on_new,
        )
        return await watch.pool


@contextmanager
def told_apart() -> Iterator[None]:
    """Around questions to PostgreSQL: what asyncpg raises becomes Refused where waiting does not help, else
    DependencyDown("postgres").
    """
    try:
        yield
    except REFUSES as error:
        raise Refused("postgres", describe(error)) from error
    except AWAY as error:
        raise DependencyDown("postgres", describe(error)) from error


def describe(error: BaseException) -> str:
    """One line for an operator. Neither asyncpg nor the OS puts a password into these messages."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


async def _leave_as_is(_connection: object) -> None:
    # Nothing here changes a session, so the default reset (a round trip per call) has nothing to undo.
    return None
