"""A room: the state of a session, harmless columns beside one sealed envelope. Pure values and rules.

Nothing here opens an envelope by itself; no repr shows one.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple

from gateway.rooms.sealing import EnvelopeLocation, Sealed

READ: Final = "rooms.read"
READ_SENSITIVE: Final = "rooms.read_sensitive"
WRITE: Final = "rooms.write"
EXPIRED: Final = "expired"
"""The state of a room whose sealed fields are gone; only expiry sets it."""
CREATED: Final = "created"
NAME_MAX: Final = 255
STATE_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Room:
    """A row of `rooms`. Instants are UTC, ids UUIDs in lower case."""

    id: str
    room_name: str
    user_id: str | None
    meeting_id: str | None
    state: str
    data: dict[str, Any] = field(repr=False)
    sealed: Sealed | None = field(repr=False)
    source_id: str | None
    """Where an import found it."""
    started_at: datetime | None
    ended_at: datetime | None
    expires_at: datetime | None
    expired_at: datetime | None
    version: int
    """Grows by one with every change of content; sealing it anew is none."""
    created_at: datetime
    updated_at: datetime


class RoomFilter(NamedTuple):
    """Which rooms; None is any."""

    room_name: str | None = None
    user_id: str | None = None
    meeting_id: str | None = None


def place_of(room_id: str) -> EnvelopeLocation:
    """What the envelope of a room is bound to."""
    return EnvelopeLocation("rooms", room_id, "sealed")


def name_fault(name: str) -> str | None:
    """What is wrong with a room's name, in words that follow the field's; None when nothing is."""
    return None if 0 < len(name) <= NAME_MAX and name.isprintable() else f"must be 1 to {NAME_MAX} printable characters"


def state_fault(state: str) -> str | None:
    """The same of a state."""
    if not (0 < len(state) <= STATE_MAX and state.isprintable()):
        return f"must be 1 to {STATE_MAX} printable characters"
    return f"may not be set to {EXPIRED!r}: expiring the room does that" if state == EXPIRED else None
