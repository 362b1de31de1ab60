"""Connections to PostgreSQL. Must not hold one at module level; the opener of a pool closes it."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from gateway.config.dsn import read_dsn
from gateway.config.files import check_files
from gateway.kit.errors import DependencyDown, DependencyRefused, StatementRefused
from gateway.stores import postgres_connections as connections
from gateway.stores.postgres_share import OneTransaction, Share

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]
    Connection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record] | asyncpg.Connection[asyncpg.Record]
else:
    Pool = asyncpg.Pool
    Connection = Any
Connections = Pool | Share | OneTransaction
"""What statements are sent through."""

AWAY: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""Whatever asyncpg raises: TimeoutError is an OSError. `translate` says what it means for the caller. Values that
PostgreSQL refuses are the caller's to handle first."""
REFUSES: Final = (
    connections.Unfit,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)
"""A wrong user or password, no such database."""
BUGS: Final = (
    asyncpg.SyntaxOrAccessError,  # 42: syntax, an undefined table, column or function, wrong types, no privilege
    asyncpg.InvalidSchemaNameError,  # 3F000
    asyncpg.FeatureNotSupportedError,  # 0A000
)
"""PostgreSQL is there and will never run this statement, however often it is sent."""
NOT_MIGRATED: Final = (
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.UndefinedFunctionError,
    asyncpg.UndefinedObjectError,
    asyncpg.InvalidSchemaNameError,
    asyncpg.InvalidColumnReferenceError,  # `on conflict` without its index
)
"""Of these, what an older schema causes."""
LOOK_UP_S: Final = 2.0
"""Seconds that a look-up may take for which a call waits; a server that is there needs a thousandth of it."""
_QUOTED: Final = (ValueError, asyncpg.DataError, asyncpg.PLPGSQLError)
"""Their messages may quote a value; of a constraint only the detail does. asyncpg's own refusal of a value is a
ValueError."""


async def open_pool(
    dsn: str,
    *,
    connections_min: int = 1,
    connections_max: int = 4,
    statement_timeout_s: float = 30.0,
    connect_timeout_s: float = 5.0,
    process: str = "",
) -> Pool:
    """A pool of at most `connections_max` connections. Raises DependencyDown("postgres") when the first
    `connections_min` cannot be made; with 0 a database that is away is met at the first question. `process` is added to
    the application name, by which `pg_stat_activity` shows whose a connection is.

    Behind a transaction pooler (config/dsn.py) sessions are shared between clients: no named prepared statements, no
    session settings (Supabase's docs); the client's own timer still holds. An unnamed one is safe
    there: asyncpg ends what prepares it with Flush, not Sync, so the pooler keeps the server until the query is done.
    """
    found = read_dsn(dsn)
    check_files("DATABASE_URL", dict(found.files))
    name = f"pailflow-gateway {process}".rstrip()
    settings = {
        "application_name": name,
        # A role or database may say otherwise; then writers that share a sum would fail each other, over and over.
        "default_transaction_isolation": "read committed",
        "jit": "off",
        "statement_timeout": str(int(statement_timeout_s * 1000)),
        "timezone": "UTC",
    }
    watch = connections.Watch()
    with translating_errors():
        watch.pool = asyncpg.create_pool(
            found.url,
            **found.tls,
            min_size=connections_min,
            max_size=connections_max,
            timeout=found.connect_timeout_s or connect_timeout_s,
            command_timeout=statement_timeout_s + 1,  # the server's own timer goes first: it says more
            statement_cache_size=0 if found.pooled else 100,
            server_settings={"application_name": name} if found.pooled else settings,
            reset=_leave_as_is,
            connect=connections.connect,
            connection_class=connections.Connection,
            init=watch.on_new,
        )
        return await watch.pool


@contextmanager
def translating_errors() -> Iterator[None]:
    """Around statements: what asyncpg raises becomes what `translate` makes of it."""
    try:
        yield
    except AWAY as error:
        raise translate(error) from error


def translate(error: BaseException) -> DependencyDown:
    """One of AWAY as the gateway's own error: StatementRefused where the statement is at fault, DependencyRefused
    where the configuration is, else an outage that ends by itself.
    """
    if isinstance(error, NOT_MIGRATED):
        return StatementRefused("postgres", f"{describe(error)} (not migrated? run `gateway migrate`)")
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return StatementRefused("postgres", f"{describe(error)} (the login lacks a privilege: see docs/schema.md)")
    if isinstance(error, BUGS) and not isinstance(error, asyncpg.InvalidCachedStatementError):  # next time it is new
        return StatementRefused("postgres", describe(error))
    if isinstance(error, REFUSES):
        return DependencyRefused("postgres", describe(error))
    return DependencyDown("postgres", describe(error))


def describe(error: BaseException) -> str:
    """One line for an operator. Neither asyncpg nor the OS puts a password into these messages. PostgreSQL's detail,
    on further lines, and what may quote a row are left out.
    """
    said = str(error).partition("\n")[0]
    if not said or (isinstance(error, _QUOTED) and not isinstance(error, connections.Unfit)):
        return type(error).__name__
    return f"{type(error).__name__}: {said}"


class Table:
    """Base of the classes that ask a pool about some tables. Every statement raises what `translate` makes of it."""

    def __init__(self, pool: Connections) -> None:
        self._pool: Final = pool

    async def _rows(self, query: str, *arguments: object) -> "list[asyncpg.Record]":
        """All rows of one statement, which commits by itself."""
        with translating_errors():
            return await self._pool.fetch(query, *arguments)

    async def _look_up(self, query: str, *arguments: object) -> "list[asyncpg.Record]":
        """Rows that a call waits for: soon or not at all."""
        with translating_errors():
            return await connections.fetch_within(self._pool, LOOK_UP_S, query, *arguments)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        """A connection, for several statements or a transaction."""
        with translating_errors():
            async with self._pool.acquire() as connection:
                yield connection


@asynccontextmanager
async def in_transaction(pool: Connections) -> AsyncIterator[OneTransaction]:
    """A transaction for several tables: it commits at the end of the block, and is undone by whatever is raised."""
    with translating_errors():
        async with pool.acquire() as connection, connection.transaction():
            yield OneTransaction(connection)


async def _leave_as_is(_connection: object) -> None:
    # Nothing here changes a session, so the default reset (a round trip per call) has nothing to undo.
    return None
