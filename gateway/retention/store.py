"""Counts and deletes personal data that are due, in batches. Never touches the ledger or an amount."""

from datetime import datetime
from typing import Final, Literal, NamedTuple

from gateway.stores.postgres import Table

Kind = Literal["participants", "inbox", "rooms"]
"""Names and addresses of participants · bodies of events that are dealt with · what is sealed in rooms."""
_OVER: Final = "coalesce(m.ended_at, p.joined_at, p.created_at)"
_DUE: Final[dict[Kind, str]] = {
    "participants": f"""
select {_OVER} as at from public.participants p join public.meetings m on m.id = p.meeting_id
where p.anonymised_at is null and {_OVER} < $1""",  # noqa: S608 - fixed text
    "inbox": """
select processed_at as at from public.webhook_inbox where processed_at < $1 and length(body) > 0""",
    "rooms": """
select ended_at as at from public.rooms where ended_at < $1 and sealed is not null""",
}
_COUNT: Final = """
select to_char(at at time zone 'UTC', 'YYYY-MM') as month, count(*) as count, min(at) as oldest, max(at) as newest
from ({due}) due group by 1 order by 1
"""
# Events that told about somebody have their name as well.
_TAKE: Final[dict[Kind, str]] = {
    "participants": f"""
with due as (
  select p.id, p.metadata -> 'daily' -> 'events' as events
  from public.participants p join public.meetings m on m.id = p.meeting_id
  where p.anonymised_at is null and {_OVER} < $1 limit $2 for update of p skip locked
), told as (
  update public.webhook_inbox set body = ''
  where source = 'daily' and processed_at is not null and event_id = any(array(
    select jsonb_array_elements_text(events) from due where jsonb_typeof(events) = 'array'))
)
update public.participants p set anonymised_at = now() from due where p.id = due.id returning p.id""",  # noqa: S608
    "inbox": """
update public.webhook_inbox set body = '' where ctid = any(array(
  select ctid from public.webhook_inbox where processed_at < $1 and length(body) > 0 limit $2 for update skip locked))
returning event_id""",
    "rooms": """
update public.rooms set sealed = null, sealed_key_id = null, state = 'expired',
  expired_at = coalesce(expired_at, now()), version = version + 1
where id = any(array(
  select id from public.rooms where ended_at < $1 and sealed is not null limit $2 for update skip locked))
returning id""",
}


class Month(NamedTuple):
    """What is due of one UTC month."""

    month: str
    """`2026-11`."""
    many: int
    oldest: datetime
    newest: datetime


class Retention(Table):
    """All of it over one pool. Every method raises DependencyDown("postgres")."""

    async def due(self, kind: Kind, before: datetime) -> list[Month]:
        """What was over before that instant and is still there, by month."""
        return [Month(*row.values()) for row in await self._rows(_COUNT.format(due=_DUE[kind]), before)]

    async def take(self, kind: Kind, before: datetime, *, rows_max: int) -> int:
        """Takes some of it away, for good; how many. Any number may do it at once."""
        return len(await self._rows(_TAKE[kind], before, rows_max))
