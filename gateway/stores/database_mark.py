"""What a database is for, in the table `database_mark`: the sandbox's calls, or real customers. Set once.

Must not decide what a command may do with it.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, Literal

from gateway.stores.postgres import open_pool, translating_errors

Kind = Literal["sandbox", "production"]

_IS_THERE: Final = "select to_regclass('public.database_mark') is not null"
_READ: Final = "select kind from public.database_mark"
_SET: Final = "insert into public.database_mark (kind, marked_by) values ($1, $2) on conflict do nothing"
_TABLES: Final = ("users", "meetings")
"""Every other row belongs to one of these, or comes of one."""


async def read_mark(connection: Any) -> Kind | None:
    """The mark; None where there is none, or no table for it yet."""
    if not await connection.fetchval(_IS_THERE):
        return None
    kind: Kind | None = await connection.fetchval(_READ)
    return kind


async def set_mark(connection: Any, kind: Kind, command: str) -> Kind:
    """Marks the database unless somebody has done so; the mark in force."""
    await connection.execute(_SET, kind, command)
    return await read_mark(connection) or kind


async def has_rows(connection: Any) -> bool:
    """Whether anybody has used this database, which may not be migrated yet."""
    for table in _TABLES:
        if await connection.fetchval("select to_regclass($1) is not null", f"public.{table}") and (
            await connection.fetchval(f"select exists (select from public.{table})")  # noqa: S608  # our own name
        ):
            return True
    return False


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[Any]:
    """One connection, for this alone. Raises DependencyDown."""
    pool = await open_pool(dsn, connections_max=1)
    try:
        with translating_errors():
            async with pool.acquire() as connection:
                yield connection
    finally:
        await pool.close()
