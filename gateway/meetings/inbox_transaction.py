"""What becomes of one event of the inbox: done, waiting for its meeting, lapsed, or taken up again."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

_LOCK: Final = "select pg_advisory_xact_lock(hashtextextended('daily ' || $1, 0))"
# Another worker may have one of these in hand, and waits for the lock that this turn holds.
_DONE: Final = """
update public.webhook_inbox set processed_at = now(), waits_for = null, lapsed_at = null, last_error = null
where source = $1 and event_id in (
  select event_id from public.webhook_inbox where source = $1 and event_id = any($2) for update skip locked)
"""
# Looked at again after as long as it has waited, at least half a minute and at most an hour.
_WAIT: Final = """
update public.webhook_inbox set waits_for = $3, about = $4, last_error = 'waits for its meeting', attempts = 0,
  next_attempt_at = now() + least(interval '1 hour', greatest(interval '30 seconds', now() - received_at))
where source = $1 and event_id = $2
"""
# A visit under 30 seconds becomes no meeting (Daily.co's docs), and REST shows when there was none. Where
# REST is never asked, a week must do. A lapsed event is dealt with; a meeting that is told later still takes it up.
_LAPSE: Final = """
update public.webhook_inbox i set processed_at = now(), lapsed_at = now(), last_error = 'lapsed: no meeting was told'
where i.source = $1 and i.event_id = $2 and (i.received_at < now() - interval '168 hours' or (
  $5::timestamptz < now() - interval '24 hours' and exists (
    select from public.daily_backfills b where (b.room is null or b.room = $3::text) and b.since_at <= $4::timestamptz
      and b.until_at >= $5 and b.finished_at > $5 + interval '1 hour')))
"""
# An event that somebody has in hand at this moment waits for the lock that this turn holds, and sees what it has done:
# it must not be waited for in turn. Of lapsed ones, those of about the same time.
_WAKE: Final = """
update public.webhook_inbox set processed_at = null, lapsed_at = null, next_attempt_at = now()
where source = $1 and event_id in (
  select event_id from public.webhook_inbox where source = $1 and waits_for = any($2::text[]) and (
    processed_at is null or (lapsed_at is not null and $3::timestamptz is not null
      and coalesce(occurred_at, received_at)
        between $3 - interval '24 hours' and coalesce($4::timestamptz, $3) + interval '24 hours'))
  for update skip locked)
"""
_WAITING: Final = """
select event_id, body from public.webhook_inbox
where source = $1 and about = any($2::text[]) and waits_for is not null and event_id <> $3 and length(body) > 0
  and (processed_at is null or lapsed_at is not null)
order by event_id
"""
_WHOLE: Final = """
select coalesce(bool_and(length(body) > 0), false) from public.webhook_inbox where source = $1 and event_id = any($2)
"""
_REDO: Final = """
update public.webhook_inbox set processed_at = null, lapsed_at = null, next_attempt_at = now()
where source = $1 and event_id in (
  select event_id from public.webhook_inbox where source = $1 and event_id = any($2) for update skip locked)
"""


class Wait(NamedTuple):
    """What an event waits for."""

    what: str
    """As `wake` names it."""
    room: str | None = None
    since: datetime | None = None
    """When what it tells about began and ended, where it says so."""
    until: datetime | None = None
    about: str | None = None
    """The connection that it tells about."""


class InboxTransaction:
    """One event, within a transaction of its own."""

    def __init__(self, connection: Any, source: str, event_id: str, body: bytes) -> None:
        self._connection: Final = connection
        self._source: Final = source
        self.event_id: Final = event_id
        self.body: Final = body

    async def lock(self, name: str) -> None:
        """Nobody else works on `name` until this turn has ended."""
        await self._connection.execute(_LOCK, name)

    async def done(self, event_ids: Sequence[str]) -> None:
        """These events are dealt with."""
        await self._connection.execute(_DONE, self._source, list(event_ids))

    async def wait(self, wait: Wait) -> None:
        """This event waits until that is known; somebody will `wake` it, or it looks again by itself, or lapses."""
        await self._connection.execute(_WAIT, self._source, self.event_id, wait.what, wait.about)
        since, until = wait.since or wait.until, wait.until or wait.since
        await self._connection.execute(_LAPSE, self._source, self.event_id, wait.room, since, until)

    async def wake(self, whats: Sequence[str], began: datetime | None = None, ended: datetime | None = None) -> None:
        """Whoever waits for one of these is taken up again; of what has lapsed, what is of about that time."""
        await self._connection.execute(_WAKE, self._source, list(whats), began, ended)

    async def waiting_about(self, session_ids: Sequence[str]) -> list[tuple[str, bytes]]:
        """Ids and bodies of the other events about these connections that wait, or have lapsed."""
        rows = await self._connection.fetch(_WAITING, self._source, list(session_ids), self.event_id)
        return [(row["event_id"], bytes(row["body"])) for row in rows]

    async def are_whole(self, event_ids: Sequence[str]) -> bool:
        """Whether all of these still have what they said: retention empties them some day."""
        return bool(await self._connection.fetchval(_WHOLE, self._source, list(event_ids)))

    async def redo(self, event_ids: Sequence[str]) -> None:
        """These events are taken up again."""
        await self._connection.execute(_REDO, self._source, list(event_ids))
