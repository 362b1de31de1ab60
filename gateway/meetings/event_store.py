"""One event's turn at the meetings and people it is about: a transaction with everything that it may ask and change."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from gateway.meetings.inbox_transaction import InboxTransaction
from gateway.meetings.people import Person, person_from, plain_person
from gateway.meetings.timeline import Session, SourcedInstant, session_from

_MEETING: Final = """
id::text, daily_meeting_id, room_name, user_id::text, status, started_at, ended_at, created_at, metadata::text
"""
_SESSION: Final = f"select {_MEETING} from public.meetings where daily_meeting_id = $1 for update"  # noqa: S608 - names of columns
_BEFORE: Final = f"""
select {_MEETING} from public.meetings where room_name = $1 and daily_meeting_id is not null and started_at < $2
order by started_at desc, daily_meeting_id desc limit $3 for update
"""  # noqa: S608 - as above
_FROM: Final = f"""
select {_MEETING} from public.meetings where room_name = $1 and daily_meeting_id is not null and started_at >= $2
order by started_at, daily_meeting_id limit $3 for update
"""  # noqa: S608 - as above
# What the platform has planned in a room, and not called off. At most one: it holds the room's open place.
_PLANNED: Final = f"""
select {_MEETING} from public.meetings where room_name = $1 and daily_meeting_id is null and ended_at is null
  and status in ('scheduled', 'in_progress') for update
"""  # noqa: S608 - as above
_CALLED_OFF: Final = """
update public.meetings set ended_at = coalesce(scheduled_at, updated_at)
where room_name = $1 and daily_meeting_id is null and ended_at is null and status in ('cancelled', 'ended')
"""
_INSERT: Final = """
insert into public.meetings (id, room_name, daily_meeting_id, status, started_at, ended_at, duration_seconds, user_id,
  metadata, recording_url, transcript_url)
values ($1::uuid, $2, $3, $4, $5, $6, $7, $8::uuid, $9::jsonb, $10, $11)
"""
_UPDATE: Final = """
update public.meetings set room_name = $2, daily_meeting_id = $3, status = $4, started_at = $5, ended_at = $6,
  duration_seconds = $7, user_id = $8::uuid, metadata = $9::jsonb, recording_url = coalesce($10, recording_url),
  transcript_url = coalesce($11, transcript_url)
where id = $1::uuid
"""
_NAMED: Final = """
select exists (select from public.openai_usage where meeting_id = $1::uuid)
  or exists (select from public.budgets where meeting_id = $1::uuid)
"""
_ROOM_OWNER: Final = """
select user_id::text from public.rooms where room_name = $1 and user_id is not null
  and ($2::timestamptz is null or created_at <= $2) order by created_at desc, id desc limit 1
"""
_USERS: Final = "select id::text from public.users where id = any($1::uuid[])"
# The meetings of a room that a connection may have been in: the last that began before it, and all until its end;
# of one that nobody has seen ending, those that may follow each other without a gap.
_SPANNED_MAX: Final = 200
_SPANNED: Final = f"""
select {_MEETING} from public.meetings where room_name = $1 and daily_meeting_id is not null and started_at >= $2
  and started_at <= coalesce($3::timestamptz, 'infinity')
order by started_at, daily_meeting_id limit {_SPANNED_MAX} for update
"""  # noqa: S608 - names of columns and a number
_PERSON: Final = """
id::text, meeting_id::text, daily_participant_id, name, joined_at, left_at, metadata::text
"""
_PEOPLE: Final = f"""
select {_PERSON} from public.participants where meeting_id = any($1::uuid[]) and metadata ? 'daily' for update
"""  # noqa: S608 - names of columns
_ROWS_OF: Final = f"""
select {_PERSON} from public.participants
where daily_participant_id = any($1::text[]) and metadata ? 'daily' order by id for update
"""  # noqa: S608 - as above
_INSERT_PERSON: Final = """
insert into public.participants (meeting_id, daily_participant_id, name, role, joined_at, left_at, duration_seconds,
  metadata)
values ($1::uuid, $2, $3, $4, $5, $6, $7, $8::jsonb)
"""
_UPDATE_PERSON: Final = """
update public.participants set meeting_id = $2::uuid, name = $3, role = $4, joined_at = $5, left_at = $6,
  duration_seconds = $7, metadata = metadata || $8::jsonb
where id = $1::uuid
"""
_MOVE: Final = "update public.participants set meeting_id = $2::uuid where meeting_id = $1::uuid and metadata ? 'daily'"
_DELETE_PEOPLE: Final = "delete from public.participants where id = any($1::uuid[])"


@dataclass(slots=True)
class MeetingRow:
    """A row of `meetings`; `session` is None for one that the platform has planned."""

    id: str
    session: Session | None
    room: str
    user_id: str | None
    status: str
    ended_at: datetime | None
    created_at: datetime | None
    metadata: dict[str, Any] = field(repr=False)
    """Whatever anybody keeps there; ours is under `daily`."""

    @property
    def key(self) -> tuple[datetime, str]:
        """What a room's meetings are ordered by."""
        assert self.session is not None
        return self.session.key

    @property
    def ours(self) -> dict[str, Any]:
        """Our part of the metadata."""
        kept: dict[str, Any] = self.metadata.get("daily", {})
        return kept


@dataclass(slots=True)
class PersonRow:
    """A row of `participants`: one connection in one meeting."""

    id: str
    meeting_id: str
    joined_at: datetime | None
    left_at: datetime | None
    person: Person


class EventTransaction(InboxTransaction):
    """One event. What it is about must be locked before it is read; locks and changes end with the transaction."""

    async def session(self, daily_id: str) -> MeetingRow | None:
        """The meeting of this id at Daily.co."""
        row = await self._connection.fetchrow(_SESSION, daily_id)
        return None if row is None else _meeting(row)

    async def meetings_around(self, room: str, at: datetime, *, before: int, after: int) -> list[MeetingRow]:
        """Daily.co's meetings of a room about an instant, in order: so many that began before it, and from it on."""
        rows = [*reversed(await self._connection.fetch(_BEFORE, room, at, before))]
        rows += await self._connection.fetch(_FROM, room, at, after)
        return [_meeting(row) for row in rows]

    async def planned_meeting(self, room: str) -> MeetingRow | None:
        """What the platform has planned there; what it has called off no longer holds the room."""
        await self._connection.execute(_CALLED_OFF, room)
        row = await self._connection.fetchrow(_PLANNED, room)
        return None if row is None else _meeting(row)

    async def write(self, row: MeetingRow, *, new: bool) -> None:
        """Makes or replaces a meeting's row."""
        session = row.session
        assert session is not None
        seconds = None if row.ended_at is None else round((row.ended_at - session.start.at).total_seconds())
        recordings, transcripts = row.ours.get("recordings", []), row.ours.get("transcripts", [])
        last = max(recordings, key=lambda one: (one["at"], one["id"]), default=None)
        await self._connection.execute(
            _INSERT if new else _UPDATE,
            row.id,
            row.room,
            session.daily_id,
            row.status,
            session.start.at,
            row.ended_at,
            seconds,
            row.user_id,
            json.dumps(row.metadata),
            None if last is None else f"daily-recording:{last['id']}",
            f"daily-transcript:{max(one['id'] for one in transcripts)}" if transcripts else None,
        )

    async def is_named(self, meeting_id: str) -> bool:
        """Whether usage or a budget points at it: then it keeps its owner."""
        return bool(await self._connection.fetchval(_NAMED, meeting_id))

    async def room_owner(self, room: str, until: datetime | None) -> str | None:
        """The user of the newest record of the room that was made until then."""
        owner: str | None = await self._connection.fetchval(_ROOM_OWNER, room, until)
        return owner

    async def users(self, ids: Sequence[str]) -> frozenset[str]:
        """Which of these (UUIDs) are users."""
        return frozenset(row[0] for row in await self._connection.fetch(_USERS, list(ids))) if ids else frozenset()

    async def people(self, meeting_ids: Sequence[str]) -> list[PersonRow]:
        """Everybody in these meetings that Daily.co has told about."""
        return [_person(row) for row in await self._connection.fetch(_PEOPLE, list(meeting_ids))]

    async def rows_of(self, session_ids: Sequence[str]) -> list[PersonRow]:
        """These connections, in whatever meetings they are kept."""
        return [_person(row) for row in await self._connection.fetch(_ROWS_OF, list(session_ids))]

    async def meetings_spanned(self, room: str, since: datetime, until: datetime | None) -> list[MeetingRow]:
        """Daily.co's meetings of a room that a connection from `since` until then may have been in, in order."""
        rows = [*await self._connection.fetch(_BEFORE, room, since, 1)]
        rows += await self._connection.fetch(_SPANNED, room, since, until)
        return [_meeting(row) for row in rows]

    async def write_person(
        self, row_id: str | None, meeting: MeetingRow, person: Person, joined: datetime, left: datetime | None
    ) -> None:
        """Makes (`row_id` None) or replaces somebody's row in a meeting."""
        assert meeting.session is not None
        seconds = None if left is None else round((left - joined).total_seconds())
        role, name = "host" if person.owner else "guest", None if person.name is None else person.name.text
        kept = json.dumps({"daily": plain_person(person, meeting.session.daily_id)})
        values = (name, role, joined, left, seconds, kept)
        if row_id is None:
            await self._connection.execute(_INSERT_PERSON, meeting.id, person.session_id, *values)
        else:
            await self._connection.execute(_UPDATE_PERSON, row_id, meeting.id, *values)

    async def move_people(self, from_id: str, to_id: str) -> None:
        """Everybody of one meeting's row into another's."""
        await self._connection.execute(_MOVE, from_id, to_id)

    async def remove_people(self, rows: Sequence[PersonRow]) -> None:
        """Takes somebody out of meetings that they were not in."""
        await self._connection.execute(_DELETE_PEOPLE, [row.id for row in rows])


def _meeting(row: Any) -> MeetingRow:
    metadata = json.loads(row["metadata"])
    return MeetingRow(
        row["id"], _session(row, metadata), row["room_name"], row["user_id"], row["status"], row["ended_at"],
        row["created_at"], metadata,
    )  # fmt: skip


def _session(row: Any, metadata: dict[str, Any]) -> Session | None:
    daily_id, kept = row["daily_meeting_id"], metadata.get("daily", {})
    if daily_id is None:
        return None
    if "start" in kept:
        return session_from(daily_id, kept)
    # The platform has written Daily's id itself: what it says of the times is worth less than anything that Daily says.
    began = row["started_at"] or row["created_at"]
    return Session(
        daily_id, SourcedInstant(began, 0), None if row["ended_at"] is None else SourcedInstant(row["ended_at"], 0)
    )


def _person(row: Any) -> PersonRow:
    kept = json.loads(row["metadata"])["daily"]
    person = person_from(row["daily_participant_id"], row["name"], kept)
    return PersonRow(row["id"], row["meeting_id"], row["joined_at"], row["left_at"], person)
