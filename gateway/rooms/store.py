"""Rooms in PostgreSQL: the only SQL about one room at a time, and of lists. Opens no envelope and holds no rule.

Every change names the version that it was made from, so that of two writers one sees that the other was faster.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

import asyncpg

from gateway.rooms.room import EXPIRED, Room, RoomFilter
from gateway.rooms.sealing import Sealed
from gateway.stores.postgres import Table

COLUMNS: Final = (
    "id::text as id, room_name, user_id::text as user_id, meeting_id::text as meeting_id, state, data, sealed,"
    " sealed_key_id, source_id, started_at, ended_at, expires_at, expired_at, version, created_at, updated_at"
)
_GET: Final = f"select {COLUMNS} from public.rooms where id = $1::uuid"  # noqa: S608 - names of columns
# The newest first; what follows the room $4 in that order.
_LIST: Final = f"""
select {COLUMNS} from public.rooms
where ($1::text is null or room_name = $1) and ($2::uuid is null or user_id = $2)
  and ($3::uuid is null or meeting_id = $3)
  and ($4::uuid is null or (created_at, id) < (select created_at, id from public.rooms where id = $4))
order by created_at desc, id desc limit $5
"""  # noqa: S608 - as above
_INSERT: Final = f"""
insert into public.rooms (id, room_name, user_id, meeting_id, state, data, sealed, sealed_key_id, started_at, ended_at,
  expires_at)
values ($1::uuid, $2, $3::uuid, $4::uuid, $5, $6::jsonb, $7, $8, $9, $10, $11)
on conflict (id) do nothing returning {COLUMNS}
"""  # noqa: S608 - as above
_UPDATE: Final = f"""
update public.rooms set room_name = $3, user_id = $4::uuid, meeting_id = $5::uuid, state = $6, data = $7::jsonb,
  sealed = case when $8 then $9 else sealed end, sealed_key_id = case when $8 then $10 else sealed_key_id end,
  started_at = $11, ended_at = $12, expires_at = $13, version = version + 1
where id = $1::uuid and version = $2 and expired_at is null returning {COLUMNS}
"""  # noqa: S608 - as above
_ERASE: Final = "sealed = null, sealed_key_id = null, state = $2, expired_at = $3, version = version + 1"
_EXPIRE: Final = f"""
update public.rooms set {_ERASE} where id = $1::uuid and expired_at is null returning {COLUMNS}
"""  # noqa: S608 - as above
_EXPIRE_DUE: Final = f"""
update public.rooms set {_ERASE} where id in (
  select id from public.rooms where expires_at <= $3 and expired_at is null
  order by expires_at limit $1 for update skip locked)
returning id
"""  # noqa: S608 - as above
_USER: Final = "select exists (select from public.users where id = $1::uuid)"
_MEETING: Final = "select id::text as id, user_id::text as user_id from public.meetings where id = $1::uuid"


class RoomMeeting(NamedTuple):
    """As much of a meeting as a room needs."""

    id: str
    user_id: str | None


class Rooms(Table):
    """All of it over one pool. Every method raises DependencyDown("postgres")."""

    async def get(self, room_id: str) -> Room | None:
        """One room (a UUID)."""
        return _one(await self._rows(_GET, room_id))

    async def page(self, wanted: RoomFilter, *, after: str | None, rows_max: int) -> list[Room]:
        """The newest first; with `after` (a room's id) what follows that room."""
        return [room_of(row) for row in await self._rows(_LIST, *wanted, after, rows_max)]

    async def create(self, room: Room) -> Room | None:
        """The room as it is stored, dated by the database; None when its id is taken."""
        sealed = room.sealed or (None, None)
        written = (room.id, room.room_name, room.user_id, room.meeting_id, room.state, json.dumps(room.data), *sealed)
        return _one(await self._rows(_INSERT, *written, room.started_at, room.ended_at, room.expires_at))

    async def update(self, room: Room, *, sealed_too: bool) -> Room | None:
        """Writes `room` over the version that it names, the envelope only if asked to. Returns the stored room; None
        when it has changed since, has expired or does not exist."""
        sealed = room.sealed or (None, None)
        harmless = (room.room_name, room.user_id, room.meeting_id, room.state, json.dumps(room.data))
        times = (room.started_at, room.ended_at, room.expires_at)
        return _one(await self._rows(_UPDATE, room.id, room.version, *harmless, sealed_too, *sealed, *times))

    async def expire(self, room_id: str, now: datetime) -> Room | None:
        """Erases what is sealed. The room as it is stored; None when it has expired before or is not there."""
        return _one(await self._rows(_EXPIRE, room_id, EXPIRED, now))

    async def expire_due(self, now: datetime, *, rows_max: int) -> int:
        """Expires rooms whose time is over, as many at most; how many there were. Any number may do it at once."""
        return len(await self._rows(_EXPIRE_DUE, rows_max, EXPIRED, now))

    async def user_exists(self, user_id: str) -> bool:
        """Whether there is such a user (a UUID)."""
        return bool((await self._rows(_USER, user_id))[0][0])

    async def meeting(self, meeting_id: str) -> RoomMeeting | None:
        """A meeting (a UUID); None when there is none."""
        rows = await self._rows(_MEETING, meeting_id)
        return RoomMeeting(*rows[0].values()) if rows else None


def room_of(row: asyncpg.Record) -> Room:
    """A row of COLUMNS."""
    values = dict(row)
    envelope, key_id = values.pop("sealed"), values.pop("sealed_key_id")
    sealed = None if envelope is None else Sealed(bytes(envelope), key_id)
    return Room(**values | {"data": json.loads(values["data"]), "sealed": sealed})


def _one(rows: Sequence[asyncpg.Record]) -> Room | None:
    return room_of(rows[0]) if rows else None
