"""The use cases of rooms for the platform's backend: create, read, change, expire. Independent of HTTP.

Sensitive fields are opened only where they are asked for or merged into; what does not open is never written over.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from gateway.config.key_ring import KeyRing
from gateway.kit.errors import ApiError
from gateway.kit.strict_json import DEPTH_MAX, check, merge_patch, size
from gateway.rooms.room import Room, RoomFilter, place_of
from gateway.rooms.sealing import RandomBytes, Sealed, open_sealed, seal
from gateway.rooms.store import Rooms
from gateway.trail.actor import Actor
from gateway.trail.store import Deed, Trail

TRIES: Final = 20
"""How often a change is made again on top of somebody else's, before its writer is told."""
BYTES_MAX: Final = 1024 * 1024
"""Bytes of `data`, and of the sensitive fields, as JSON."""
_UNDATED: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Change(NamedTuple):
    """What is to be made of a room."""

    columns: dict[str, Any]
    """Columns of Room that are replaced: `room_name`, `user_id`, `meeting_id`, `state` and the instants."""
    data: dict[str, Any] | None = None
    """A JSON Merge Patch on `data`; None leaves it."""
    sensitive: dict[str, Any] | None = None
    """The same on what is sealed."""
    clear_sensitive: bool = False
    """Drops what is sealed first."""

    def __repr__(self) -> str:
        return f"Change({', '.join(self.columns)})"


class RoomKeeper:
    """One per process. Methods raise ApiError, DependencyDown and, where an envelope is opened, NotOpened."""

    def __init__(
        self, rooms: Rooms, trail: Trail, ring: KeyRing, *, random_bytes: RandomBytes, now: Callable[[], datetime]
    ) -> None:
        self._rooms: Final = rooms
        self._trail: Final = trail
        self._ring: Final = ring
        self._random_bytes: Final = random_bytes
        self._now: Final = now

    async def create(self, room_id: str, change: Change) -> Room:
        """A new room under this id (a UUID). `change.columns` must have its name and state."""
        await self._check_owners(change.columns.get("user_id"), change.columns.get("meeting_id"))
        empty = Room(
            room_id, "", None, None, "", {}, None, None, None, None, None, None, 1, _UNDATED, _UNDATED
        )  # fmt: skip
        made = await self._rooms.create(self._apply_change(empty, change))
        if made is None:
            raise ApiError(409, "room_exists", "There is a room of this id already.", param="id")
        return made

    async def get(self, room_id: str) -> Room:
        """One room, still sealed."""
        room = await self._rooms.get(room_id)
        if room is None:
            raise ApiError(404, "room_not_found", "There is no such room.")
        return room

    async def read_sensitive(self, room: Room, key_id: str) -> dict[str, Any] | None:
        """The sensitive fields, once it is recorded that this key (Unkey's id) has read them; None when there are none.
        Raises NotOpened."""
        if room.sealed is None:
            return None
        fields = open_sealed(self._ring, room.sealed, place_of(room.id))
        # Before they leave: what cannot be recorded is not shown.
        await self._trail.write(Actor("key", key_id), Deed("read_sensitive", "room", room.id))
        return fields

    async def page(self, wanted: RoomFilter, *, after: str | None, rows_max: int) -> tuple[list[Room], bool]:
        """The newest rooms after `after`, and whether there are more."""
        if after is not None and await self._rooms.get(after) is None:
            raise ApiError(400, "invalid_value", "'after' must be the id of a room.", param="after")
        rooms = await self._rooms.page(wanted, after=after, rows_max=rows_max + 1)
        return rooms[:rows_max], len(rooms) > rows_max

    async def update(self, room_id: str, change: Change, *, version: int | None) -> Room:
        """Changes a room: the version that is named, or else the newest, however many others write."""
        for _ in range(TRIES):
            room = await self.get(room_id)
            if version is not None and room.version != version:
                break
            if room.expired_at is not None:
                raise ApiError(409, "room_expired", "The room has expired and can no longer be changed.")
            changed = self._apply_change(room, change)
            if {"user_id", "meeting_id"} & change.columns.keys():
                await self._check_owners(changed.user_id, changed.meeting_id)
            sealed_too = change.sensitive is not None or change.clear_sensitive
            stored = await self._rooms.update(changed, sealed_too=sealed_too)
            if stored is not None:
                return stored
        message = "The room has been changed by somebody else; read it again and repeat what still holds."
        raise ApiError(409, "version_conflict", message)

    async def expire(self, room_id: str) -> Room:
        """Erases what is sealed, for good. Doing it again changes nothing."""
        return await self._rooms.expire(room_id, self._now()) or await self.get(room_id)

    def _apply_change(self, room: Room, change: Change) -> Room:
        data = room.data if change.data is None else merge_patch(room.data, change.data)
        _check_bounds(data, "data")
        sealed = None if change.clear_sensitive else room.sealed
        if change.sensitive is not None:
            before = {} if sealed is None else open_sealed(self._ring, sealed, place_of(room.id))
            sealed = self._seal(room.id, merge_patch(before, change.sensitive))
        return replace(room, **change.columns, data=data, sealed=sealed)

    def _seal(self, room_id: str, fields: dict[str, Any]) -> Sealed | None:
        _check_bounds(fields, "sensitive")
        return seal(self._ring, fields, place_of(room_id), self._random_bytes) if fields else None

    async def _check_owners(self, user_id: str | None, meeting_id: str | None) -> None:
        if user_id is not None and not await self._rooms.user_exists(user_id):
            raise ApiError(400, "invalid_value", "'user_id' must be the id of a user; there is none.", param="user_id")
        if meeting_id is None:
            return
        meeting = await self._rooms.meeting(meeting_id)
        if meeting is None:
            wrong = "must be the id of a meeting; there is none"
        elif user_id is not None and meeting.user_id != user_id:
            wrong = "must be a meeting of the room's user"
        else:
            return
        raise ApiError(400, "invalid_value", f"'meeting_id' {wrong}.", param="meeting_id")


def _check_bounds(fields: dict[str, Any], param: str) -> None:
    """A merge may nest or grow what was within bounds."""
    try:
        check(fields, DEPTH_MAX)
    except ValueError as error:
        raise ApiError(400, "invalid_value", f"'{param}': {error}.", param=param) from None
    if size(fields) > BYTES_MAX:
        raise ApiError(413, "room_too_large", f"'{param}' would have more than {BYTES_MAX} bytes.", param=param)
