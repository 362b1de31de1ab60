"""One frozen view of the database for a whole audit: a ledger that is being written to still gives consistent sums.

The transaction is REPEATABLE READ, READ ONLY: it locks nothing and can change nothing. Must hold no query of its own.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final, NamedTuple

import asyncpg

from gateway.stores.postgres import translating_errors

EXAMPLES_MAX: Final = 10
"""Ids that are named of each thing found wrong."""
_CURSOR_ROWS: Final = 500
"""Rows of a cursor in memory at a time."""


# Whether row security hides rows from this login: then every sum would be of what is left, and all would look well.
_HIDDEN: Final = """
select row_security_active('public.openai_usage') and not exists (
  select from pg_policies p, unnest(p.roles) as role
  where p.schemaname = 'public' and p.tablename = 'openai_usage' and p.qual = 'true' and p.cmd in ('ALL', 'SELECT')
    and case when role = 'public' then true else pg_has_role(role, 'usage') end) as hidden
"""


class AuditRange(NamedTuple):
    """Rows by `completed_at`, half-open, whole hours and whole billing windows; None means no bound."""

    since: datetime | None
    until: datetime | None


class Offenders(NamedTuple):
    """What breaks a rule: how many, and some of them."""

    found: int = 0
    examples: tuple[str, ...] = ()
    """EXAMPLES_MAX at most."""


def unless(holds: bool, said: str) -> Offenders:
    """Nothing wrong where it holds, else one offender that is told in words."""
    return Offenders() if holds else Offenders(1, (said,))


class Snapshot:
    """Questions to the frozen view. Every method raises DependencyDown("postgres") when the database does not answer
    or is not migrated."""

    def __init__(self, connection: Any) -> None:
        self._connection: Final = connection

    async def sees_all(self) -> bool:
        """Whether no row is hidden from this login."""
        return not (await self.row(_HIDDEN))["hidden"]

    async def rows(self, query: str, *arguments: object) -> "list[asyncpg.Record]":
        """All rows of a small answer."""
        with translating_errors():
            found: list[asyncpg.Record] = await self._connection.fetch(query, *arguments)
        return found

    async def row(self, query: str, *arguments: object) -> "asyncpg.Record":
        """The one row of an aggregate."""
        (found,) = await self.rows(query, *arguments)
        return found

    async def offenders(self, query: str, *arguments: object) -> Offenders:
        """The answer of a query that has a text column `example` and, as `found`, the count of all."""
        rows = await self.rows(query, *arguments)
        return Offenders(rows[0]["found"], tuple(row["example"] for row in rows)) if rows else Offenders()

    async def stream(self, query: str, *arguments: object) -> "AsyncGenerator[asyncpg.Record, None]":
        """Rows one by one from a cursor of the server's, so that a large ledger never is in memory."""
        with translating_errors():
            async for row in self._connection.cursor(query, *arguments, prefetch=_CURSOR_ROWS):
                yield row


@asynccontextmanager
async def snapshot(pool: "asyncpg.Pool[Any]") -> AsyncIterator[Snapshot]:
    """A view as of its first question, which ends with the block. Raises DependencyDown("postgres")."""
    with translating_errors():
        connection = await pool.acquire()
    try:
        transaction = connection.transaction(isolation="repeatable_read", readonly=True)
        with translating_errors():
            await transaction.start()
        try:
            yield Snapshot(connection)
        finally:
            if not connection.is_closed():
                await transaction.rollback()
    finally:
        await pool.release(connection)


def select_worst(query: str) -> str:
    """`query`, which yields a text column `example`, as `Snapshot.offenders` takes it: counted, a few shown, in order.

    For constants at the top of a file only, never for input.
    """
    return f"select count(*) over () as found, example from ({query}) wrong order by example limit {EXAMPLES_MAX}"  # noqa: S608


def utc(at: str) -> str:
    """The timestamptz expression `at` as text that does not depend on the session's time zone and date style."""
    return f"""to_char({at} at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS"Z"')"""
