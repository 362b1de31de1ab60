"""`daily_backfills`: how far a walk over Daily.co's past meetings has come, and whose turn the regular look is."""

from datetime import datetime
from typing import Any, Final, NamedTuple

import asyncpg

from gateway.core.errors import DependencyDown

_READ: Final = """
select cursor, meetings, finished_at is not null as finished, until_at from public.daily_backfills where name = $1
"""
_WRITE: Final = """
insert into public.daily_backfills (name, cursor, meetings, finished_at, until_at)
values ($1, $2, $3, case when $4 then now() end, $5)
on conflict (name) do update set cursor = excluded.cursor, meetings = excluded.meetings,
  finished_at = excluded.finished_at, until_at = excluded.until_at
"""
_LEASE: Final = """
insert into public.daily_backfills as b (name, leased_until) values ($1, now() + $2 * interval '1 second')
on conflict (name) do update set leased_until = excluded.leased_until where b.leased_until < now() returning name
"""


class Reached(NamedTuple):
    """How far a walk has come."""

    cursor: str | None
    meetings: int
    finished: bool
    until: datetime
    """Where its range ends."""


class Walks:
    """All of it over one pool. Every method raises DependencyDown("postgres")."""

    def __init__(self, pool: "asyncpg.Pool[Any]") -> None:
        self._pool: Final = pool

    async def reached(self, name: str) -> Reached | None:
        """Where the walk of this name is; None where it has not begun."""
        rows = await self._rows(_READ, name)
        return Reached(*rows[0].values()) if rows else None

    async def reach(self, name: str, reached: Reached) -> None:
        """Notes where it is."""
        await self._rows(_WRITE, name, *reached)

    async def lease(self, name: str, seconds: float) -> bool:
        """Whether it is this caller's turn; then nobody else's for so long."""
        return bool(await self._rows(_LEASE, name, seconds))

    async def _rows(self, query: str, *arguments: object) -> "list[asyncpg.Record]":
        try:
            return await self._pool.fetch(query, *arguments)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            raise DependencyDown("postgres", type(error).__name__) from error
