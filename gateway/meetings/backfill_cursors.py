"""`daily_backfills`: how far a walk over Daily.co's past meetings has come, and whose turn the regular look is."""

from datetime import datetime
from typing import Final, NamedTuple

from gateway.stores.postgres import Table

_READ: Final = """
select cursor, meetings, finished_at is not null as finished, until_at from public.daily_backfills where name = $1
"""
_WRITE: Final = """
insert into public.daily_backfills (name, cursor, meetings, finished_at, until_at, since_at, room)
values ($1, $2, $3, case when $4 then now() end, $5, $6, $7)
on conflict (name) do update set cursor = excluded.cursor, meetings = excluded.meetings,
  finished_at = excluded.finished_at, until_at = excluded.until_at, since_at = excluded.since_at, room = excluded.room
"""
# A look that begins where the last one had come to, or before, makes one range of both.
_LOOKED: Final = """
update public.daily_backfills set finished_at = now(), until_at = $3,
  since_at = case when until_at >= $2 then least(since_at, $2) else $2 end
where name = $1
"""
_LEASE: Final = """
insert into public.daily_backfills as b (name, leased_until) values ($1, now() + $2 * interval '1 second')
on conflict (name) do update set leased_until = excluded.leased_until where b.leased_until < now() returning name
"""


class BackfillCursor(NamedTuple):
    """How far a walk has come."""

    cursor: str | None
    meetings: int
    finished: bool
    until: datetime
    """Where its range ends."""


class BackfillCursors(Table):
    """All of it over one pool. Every method raises DependencyDown("postgres")."""

    async def find(self, name: str) -> BackfillCursor | None:
        """Where the walk of this name is; None where it has not begun."""
        rows = await self._rows(_READ, name)
        return BackfillCursor(*rows[0].values()) if rows else None

    async def save(self, name: str, reached: BackfillCursor, since: datetime, room: str | None) -> None:
        """Notes where it is, of a walk from `since` on, over one room or (None) all."""
        await self._rows(_WRITE, name, *reached, since, room)

    async def save_look(self, name: str, since: datetime, until: datetime) -> None:
        """Notes that the regular look has seen all meetings that began in [since, until)."""
        await self._rows(_LOOKED, name, since, until)

    async def lease(self, name: str, seconds: float) -> bool:
        """Whether it is this caller's turn; then nobody else's for so long."""
        return bool(await self._rows(_LEASE, name, seconds))
