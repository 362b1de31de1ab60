"""One pool of connections to PostgreSQL, divided among its uses so that none can make another wait.

A use never holds more than its share, and the shares of a pool add up to its size: whatever one use does, however slow
its statements are, the connections of the others stay free. What is not used is not opened.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import asyncpg

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]
else:
    Pool = Any


class Share:
    """What one use of a pool may hold; it is asked like a pool. Who wants more waits for others of the same use."""

    def __init__(self, pool: Pool, connections_max: int) -> None:
        self._pool: Final = pool
        self._free: Final = asyncio.Semaphore(connections_max)

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Any]:
        """A connection, while the block lasts."""
        async with self._free, self._pool.acquire() as connection:
            yield connection

    async def fetch(self, query: str, *arguments: object) -> "list[asyncpg.Record]":
        """All rows of one statement, which commits by itself."""
        async with self._free:
            return await self._pool.fetch(query, *arguments)

    async def expire_connections(self) -> None:
        """Drops every connection of the pool, also those of other uses: they lead to the same server."""
        await self._pool.expire_connections()


class OneTransaction:
    """A connection in a transaction that somebody else ends; it is asked like a pool. One statement at a time."""

    def __init__(self, connection: Any) -> None:
        self._connection: Final = connection

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Any]:
        """The connection. A transaction on it is a savepoint."""
        yield self._connection

    async def fetch(self, query: str, *arguments: object) -> "list[asyncpg.Record]":
        """All rows of one statement."""
        rows: list[asyncpg.Record] = await self._connection.fetch(query, *arguments)
        return rows

    async def expire_connections(self) -> None:
        """Nothing: the transaction ends with its connection."""
