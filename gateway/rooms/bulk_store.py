"""Rooms in PostgreSQL in bulk: for resealing, checking and importing them.

Opens no envelope. Whatever is written in a batch is one transaction, so a kill leaves whole batches behind.
"""

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

import asyncpg

from gateway.rooms.room import Room
from gateway.rooms.sealing import Sealed
from gateway.rooms.store import COLUMNS, room_of
from gateway.stores.postgres import Table

FIRST: Final = "00000000-0000-0000-0000-000000000000"
"""Before every id of a room."""
_COUNTS: Final = """
select sealed_key_id as key_id, count(*) as rooms from public.rooms where sealed is not null group by 1 order by 1
"""
_SEALED: Final = """
select id::text as id, sealed, sealed_key_id as key_id from public.rooms
where id > $1::uuid and sealed is not null order by id limit $2
"""
# Rows that somebody else is writing just now are left to a later pass: neither waits for the other.
_STALE: Final = """
select id::text as id, sealed, sealed_key_id as key_id from public.rooms
where id > $1::uuid and sealed is not null and sealed_key_id <> $2 order by id limit $3 for update skip locked
"""
_RESEAL: Final = "update public.rooms set sealed = $2, sealed_key_id = $3 where id = $1::uuid"
_OF_SOURCE: Final = f"select {COLUMNS} from public.rooms where source_id = any($1::text[])"  # noqa: S608 - names
_WITH_PREFIX: Final = "select count(*) from public.rooms where starts_with(source_id, $1)"
# Rows that a file has, each column an array; a second run, or another at the same time, makes no second room of a row.
_MAKE: Final = """
insert into public.rooms (id, room_name, user_id, meeting_id, state, data, sealed, sealed_key_id, source_id, started_at,
  ended_at, expires_at, created_at)
select id, room_name, user_id, meeting_id, state, data::jsonb, sealed, key_id, source_id, started_at, ended_at,
  expires_at, coalesce(created_at, now())
from unnest($1::uuid[], $2::text[], $3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::bytea[], $8::text[],
  $9::text[], $10::timestamptz[], $11::timestamptz[], $12::timestamptz[], $13::timestamptz[])
  as made (id, room_name, user_id, meeting_id, state, data, sealed, key_id, source_id, started_at, ended_at, expires_at,
  created_at)
on conflict (source_id) do nothing returning source_id
"""
_REMAKE: Final = """
update public.rooms set room_name = $2, user_id = $3::uuid, meeting_id = $4::uuid, state = $5, data = $6::jsonb,
  sealed = $7, sealed_key_id = $8, started_at = $10, ended_at = $11, expires_at = $12,
  created_at = coalesce($13, created_at), version = version + 1
where id = $1::uuid and source_id = $9 and version = $14 and expired_at is null returning 1
"""
_USERS: Final = """
select id::text as id, lower(email) as email from public.users
where id = any($1::uuid[]) or lower(email) = any($2::text[])
"""
_MEETINGS: Final = "select id::text as id, user_id::text as user_id from public.meetings where id = any($1::uuid[])"

_UNKEEPABLE: Final = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
)
"""A value that no retry will bring in."""


class StoredEnvelope(NamedTuple):
    """A room's envelope, and whose it is."""

    room_id: str
    sealed: Sealed


class Made(NamedTuple):
    """A room for import: its row, and whether it had a date of its own."""

    room: Room
    created_at: datetime | None


Reseal = Callable[[StoredEnvelope], Sealed | None]
"""The same fields sealed anew; None to leave the row as it is."""


class BulkRooms(Table):
    """All of it over one pool. Every method raises DependencyDown("postgres")."""

    async def counts(self) -> dict[str, int]:
        """Sealed rooms per key id."""
        async with self._connection() as connection:
            return {row["key_id"]: row["rooms"] for row in await connection.fetch(_COUNTS)}

    async def read_sealed(self, after: str, rows_max: int) -> list[StoredEnvelope]:
        """Envelopes of rooms whose id follows `after`, in the order of ids; the first page follows FIRST."""
        async with self._connection() as connection:
            return [_stored(row) for row in await connection.fetch(_SEALED, after, rows_max)]

    async def reseal(self, newest: str, after: str, rows_max: int, reseal: Reseal) -> list[str]:
        """Seals anew what follows `after` and is not under the key `newest`, in one transaction. The ids that were
        looked at; those that `reseal` refused are as they were.
        """
        async with self._connection() as connection, connection.transaction():
            stale = [_stored(row) for row in await connection.fetch(_STALE, after, newest, rows_max)]
            anew = [(each.room_id, reseal(each)) for each in stale]
            await connection.executemany(_RESEAL, [(room_id, *sealed) for room_id, sealed in anew if sealed])
            return [each.room_id for each in stale]

    async def of_source(self, source_ids: Sequence[str]) -> dict[str, Room]:
        """Rooms that were taken over under these ids, by them."""
        async with self._connection() as connection:
            rooms = [room_of(row) for row in await connection.fetch(_OF_SOURCE, list(source_ids))]
        return {room.source_id or "": room for room in rooms}

    async def with_prefix(self, prefix: str) -> int:
        """How many rooms have a source id that begins so."""
        async with self._connection() as connection:
            return int(await connection.fetchval(_WITH_PREFIX, prefix))

    async def users(self, ids: Sequence[str], emails: Sequence[str]) -> tuple[set[str], dict[str, str]]:
        """Which of these users there are, by id, and by e-mail address in lower case with their ids."""
        async with self._connection() as connection:
            rows = await connection.fetch(_USERS, list(ids), list(emails))
        return {row["id"] for row in rows}, {row["email"]: row["id"] for row in rows}

    async def meetings(self, ids: Sequence[str]) -> dict[str, str | None]:
        """Which of these meetings there are, with whose they are."""
        async with self._connection() as connection:
            return {row["id"]: row["user_id"] for row in await connection.fetch(_MEETINGS, list(ids))}

    async def write(self, new: Sequence[Made], changed: Sequence[Made]) -> set[str]:
        """Makes rooms, and writes others over the version that each names, in one transaction. The source ids of those
        that were not written, because somebody else was faster. Raises ValueError when PostgreSQL cannot keep a value
        of some row: then nothing was written.
        """
        async with self._connection() as connection:
            try:
                async with connection.transaction():
                    columns = [list(column) for column in zip(*map(_values, new), strict=True)]
                    made = {row["source_id"] for row in await connection.fetch(_MAKE, *columns)} if new else set()
                    remade = {
                        each.room.source_id
                        for each in changed
                        if await connection.fetchval(_REMAKE, *_values(each), each.room.version) is not None
                    }
            except _UNKEEPABLE as error:
                raise ValueError(f"PostgreSQL refuses it ({type(error).__name__})") from None
        return {each.room.source_id or "" for each in (*new, *changed)} - made - remade


def _values(made: Made) -> tuple[object, ...]:
    room = made.room
    sealed = room.sealed or (None, None)
    times = (room.started_at, room.ended_at, room.expires_at, made.created_at)
    owners = (room.user_id, room.meeting_id)
    return (room.id, room.room_name, *owners, room.state, json.dumps(room.data), *sealed, room.source_id, *times)


def _stored(row: asyncpg.Record) -> StoredEnvelope:
    return StoredEnvelope(row["id"], Sealed(bytes(row["sealed"]), row["key_id"]))
