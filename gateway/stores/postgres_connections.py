"""Checks connections to PostgreSQL, and decides when a pool must drop all of its connections.

A connection may work and yet be wrong. After a failover that cuts nobody off, it still leads to the old primary,
which only reads now; a network may have forgotten it without a word. A pool cannot know, and would keep such
connections for ever: each would fail in its turn.
"""

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

import asyncpg
from asyncpg.connection import LoggedQuery

from gateway.kit.sockets import keep_alive
from gateway.stores.postgres_share import OneTransaction, Share

if TYPE_CHECKING:
    Base = asyncpg.Connection[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]
else:
    Base = asyncpg.Connection
    Pool = Any

WRONG_SERVER: Final = (
    asyncpg.ReadOnlySQLTransactionError,  # 25006: it was demoted, or the address has led to a standby
    asyncpg.AdminShutdownError,  # 57P01
    asyncpg.CrashShutdownError,  # 57P02
    asyncpg.CannotConnectNowError,  # 57P03
    asyncpg.PostgresConnectionError,  # 08: it broke off
    OSError,  # the same, or the client's own timer: the server's goes first where there is one
)
"""After these, every other connection of the pool is likely to lead to the same place."""


class Unfit(ConnectionError):
    """The configuration does not allow a connection (a certificate, an option): somebody has to correct it."""


class Connection(Base):
    """One whose other end is noticed to be gone."""

    def __init__(self, protocol: Any, transport: Any, *rest: Any) -> None:
        super().__init__(protocol, transport, *rest)
        keep_alive(transport.get_extra_info("socket"))


async def connect(*arguments: Any, **options: Any) -> Any:
    """A connection. Whatever prevents it is an OSError or PostgreSQL's own error.

    Some of asyncpg's and ssl's errors are ValueErrors, as is what it says of values it cannot send; a certificate that
    has run out must not be taken for a row that cannot be written.
    """
    try:
        return await asyncpg.connect(*arguments, **options)
    except ValueError as error:
        raise Unfit(f"{type(error).__name__}: {error}") from error
    except (asyncpg.InternalClientError, RuntimeError) as error:
        # No host with target_session_attrs; RuntimeError: uvloop, of a connection that is closing.
        raise ConnectionError(f"{type(error).__name__}: {error}") from error


class Watch:
    """Empties a pool at the first sign that it leads to the wrong server, or nowhere; the next statement connects
    anew, by DNS and whatever proxy there is.
    """

    def __init__(self) -> None:
        self.pool: Pool | None = None
        self._tasks: Final[set[asyncio.Task[None]]] = set()

    async def on_new(self, connection: Any) -> None:
        """Looks at what becomes of this connection's statements."""
        connection.add_query_logger(self._judge)

    def _judge(self, statement: LoggedQuery) -> None:
        if isinstance(statement.exception, WRONG_SERVER) and self.pool is not None:
            task = asyncio.get_running_loop().create_task(self.pool.expire_connections())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


async def fetch_within(
    pool: Pool | Share | OneTransaction, answer_s: float, query: str, *arguments: object
) -> "list[asyncpg.Record]":
    """The rows, or TimeoutError after `answer_s`, connecting included.

    A connection that stays silent is closed at once. Asking the server to cancel, as asyncpg does after a timeout,
    would wait for the same network once more.
    """
    until_s = asyncio.get_running_loop().time() + answer_s
    async with AsyncExitStack() as stack:
        async with asyncio.timeout_at(until_s):
            connection = await stack.enter_async_context(pool.acquire())
        try:
            async with asyncio.timeout_at(until_s):
                rows: list[asyncpg.Record] = await connection.fetch(query, *arguments)
        except TimeoutError:
            connection.terminate()
            await pool.expire_connections()
            raise TimeoutError(f"no answer within {answer_s:.0f} s") from None
        return rows
