"""A room as the API shows it. Pure."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from gateway.kit.instants import rfc3339
from gateway.rooms.room import Room

Uuid = Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
Instant = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]


class RoomView(msgspec.Struct, frozen=True, kw_only=True):
    """A room. `sensitive` is only there where it was asked for."""

    object: Literal["room"] = "room"
    id: Uuid
    room_name: str
    user_id: Uuid | None
    meeting_id: Uuid | None
    state: str
    data: dict[str, Any]
    has_sensitive: bool
    source_id: str | None
    started_at: Instant | None
    ended_at: Instant | None
    expires_at: Instant | None
    expired_at: Instant | None
    created_at: Instant
    updated_at: Instant
    version: int
    sensitive: dict[str, Any] | UnsetType | None = UNSET

    def __repr__(self) -> str:
        return f"RoomView({self.id})"  # its fields may be secret


class WrittenRoom(msgspec.Struct, frozen=True, kw_only=True):
    """A room after it was written. A key without `rooms.read` gets `id` and `version` alone."""

    object: Literal["room"] = "room"
    id: Uuid
    version: int
    room_name: str | UnsetType = UNSET
    user_id: Uuid | UnsetType | None = UNSET
    meeting_id: Uuid | UnsetType | None = UNSET
    state: str | UnsetType = UNSET
    data: dict[str, Any] | UnsetType = UNSET
    has_sensitive: bool | UnsetType = UNSET
    source_id: str | UnsetType | None = UNSET
    started_at: Instant | UnsetType | None = UNSET
    ended_at: Instant | UnsetType | None = UNSET
    expires_at: Instant | UnsetType | None = UNSET
    expired_at: Instant | UnsetType | None = UNSET
    created_at: Instant | UnsetType = UNSET
    updated_at: Instant | UnsetType = UNSET

    def __repr__(self) -> str:
        return f"WrittenRoom({self.id})"  # its fields may be secret


class RoomList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of rooms, the newest first."""

    object: Literal["list"] = "list"
    data: list[RoomView]
    has_more: bool
    last_id: Uuid | None


def view_of(room: Room, sensitive: dict[str, Any] | UnsetType | None = UNSET) -> RoomView:
    """The harmless columns, and the sensitive fields where they are given."""
    return RoomView(
        id=room.id,
        room_name=room.room_name,
        user_id=room.user_id,
        meeting_id=room.meeting_id,
        state=room.state,
        data=room.data,
        has_sensitive=room.sealed is not None,
        source_id=room.source_id,
        started_at=rfc3339(room.started_at),
        ended_at=rfc3339(room.ended_at),
        expires_at=rfc3339(room.expires_at),
        expired_at=rfc3339(room.expired_at),
        created_at=rfc3339(room.created_at),
        updated_at=rfc3339(room.updated_at),
        version=room.version,
        sensitive=sensitive,
    )


def written_view_of(room: Room, *, may_read: bool) -> WrittenRoom:
    """As much of it as its writer may read."""
    if not may_read:
        return WrittenRoom(id=room.id, version=room.version)
    shown = msgspec.structs.asdict(view_of(room))
    del shown["sensitive"]
    return WrittenRoom(**shown)
