"""Meetings for people: which there are, and making somebody the owner of one."""

from datetime import datetime
from typing import Final, NamedTuple

from gateway.stores.postgres import Table

_LIST: Final = """
select m.id::text, m.room_name, m.daily_meeting_id, u.email, m.status, m.started_at, m.ended_at, m.duration_seconds,
  (select count(*) from public.participants p where p.meeting_id = m.id) as participants, m.recording_url,
  m.transcript_url
from public.meetings m left join public.users u on u.id = m.user_id
where (not $1 or m.user_id is null) and ($2::text is null or m.room_name = $2)
order by m.started_at desc nulls first, m.id limit $3
"""
_ASSIGN: Final = """
update public.meetings set user_id = $2::uuid, metadata = metadata || '{"owner": "manual"}'
where id = $1::uuid and (user_id = $2::uuid or not exists (select from public.openai_usage where meeting_id = $1::uuid)
  and not exists (select from public.budgets where meeting_id = $1::uuid))
returning id
"""
_REFERENCES: Final = "select recording_url, transcript_url from public.meetings where id = $1::uuid"
_OWNER: Final = "select user_id::text from public.meetings where id = $1::uuid for update"
_EXISTS: Final = "select exists (select from public.meetings where id = $1::uuid)"
# Meetings of the last days that nobody owns, and whose room has a record with an owner since.
_CLAIM: Final = """
update public.meetings m set user_id = (
  select r.user_id from public.rooms r where r.room_name = m.room_name and r.user_id is not null
    and r.created_at <= coalesce(m.ended_at, now()) order by r.created_at desc, r.id desc limit 1)
where m.user_id is null and m.started_at > now() - interval '168 hours' and exists (
  select from public.rooms r where r.room_name = m.room_name and r.user_id is not null
    and r.created_at <= coalesce(m.ended_at, now()))
returning m.id
"""


class Listed(NamedTuple):
    """A meeting as it is listed."""

    id: str
    room_name: str
    daily_meeting_id: str | None
    email: str | None
    """Its owner's; None while it has none."""
    status: str
    started_at: datetime | None
    ended_at: datetime | None
    duration_seconds: int | None
    participants: int
    recording_url: str | None
    transcript_url: str | None


class MediaReferences(NamedTuple):
    """What lasts of a meeting's recording and transcript: `daily-recording:<id>`, `daily-transcript:<id>`, or a URL."""

    recording: str | None
    transcript: str | None


class MeetingListing(Table):
    """All of it over one pool. Every method raises DependencyDown("postgres")."""

    async def meetings(self, *, unassigned: bool, room: str | None, rows_max: int) -> list[Listed]:
        """The latest first; those that are only planned before them."""
        return [Listed(*row.values()) for row in await self._rows(_LIST, unassigned, room, rows_max)]

    async def assign(self, meeting_id: str, user_id: str) -> bool | None:
        """Makes a user (UUID) the owner of a meeting (UUID) for good. False when usage or a budget of another owner
        points at it; None when there is no such meeting."""
        if await self._rows(_ASSIGN, meeting_id, user_id):
            return True
        return False if (await self._rows(_EXISTS, meeting_id))[0][0] else None

    async def owner(self, meeting_id: str) -> str | None:
        """Whose a meeting (UUID) is, which then nobody else changes in this transaction; None when it is nobody's."""
        rows = await self._rows(_OWNER, meeting_id)
        return rows[0]["user_id"] if rows else None

    async def references(self, meeting_id: str) -> MediaReferences | None:
        """Of one meeting (UUID); None when there is no such meeting."""
        rows = await self._rows(_REFERENCES, meeting_id)
        return MediaReferences(*rows[0].values()) if rows else None

    async def claim(self) -> int:
        """Gives meetings without an owner the one that their room's record names by now; how many."""
        return len(await self._rows(_CLAIM))
