"""The requests of the rooms API, validated and parsed. Raises ApiError 400 that names the field, never
its value."""

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from msgspec import UNSET, Meta, UnsetType

from gateway.http.fields import Fields, invalid, read_uuid
from gateway.kit.errors import ApiError, OptionError
from gateway.kit.instants import parse_instant
from gateway.rooms.room import CREATED, NAME_MAX, STATE_MAX, RoomFilter, name_fault, state_fault
from gateway.rooms.service import Change

LIMIT_MAX: Final = 100
LIMIT: Final = 20
_CHANGEABLE: Final = (
    "room_name", "state", "user_id", "meeting_id", "started_at", "ended_at", "expires_at", "data", "sensitive",
)  # fmt: skip


def read_name(value: Any) -> str:
    """The name of a room."""
    wrong = name_fault(value) if isinstance(value, str) else "must be text"
    if wrong:
        raise ValueError(wrong)
    return str(value)


def read_state(value: Any) -> str:
    """A state that a client may set."""
    wrong = state_fault(value) if isinstance(value, str) else "must be text"
    if wrong:
        raise ValueError(wrong)
    return str(value)


def read_instant(value: Any) -> datetime:
    """An instant, or a date for its UTC midnight."""
    try:
        if isinstance(value, str) and len(value) <= 40:
            return parse_instant(value, "")
    except OptionError:
        pass
    raise ValueError("must be an instant with its zone, like 2026-11-22T10:00:00Z")


def read_limit(value: Any) -> int:
    """How many rooms a list has at most."""
    text = str(value)
    if not (text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= LIMIT_MAX):
        raise ValueError(f"must be a whole number from 1 to {LIMIT_MAX}")
    return int(text)


def read_version(value: Any) -> int:
    """The version of a room."""
    if type(value) is not int or value < 1:  # True is an int too
        raise ValueError("must be the room's version, a whole number from 1")
    return value


def read_data(value: Any) -> dict[str, Any]:
    """A JSON Merge Patch that cannot remove the whole."""
    if value is None:
        raise ValueError("must be a JSON object; null for one of its fields removes that")
    if not isinstance(value, dict):
        raise ValueError("must be a JSON object")
    return value


_UUID: Final = {"format": "uuid"}
RoomId = Annotated[str, Meta(title="The room's id", extra_json_schema=_UUID, extra={"parse": read_uuid})]
OtherId = Annotated[str, Meta(extra_json_schema=_UUID, extra={"parse": read_uuid})]
Name = Annotated[
    str,
    Meta(min_length=1, max_length=NAME_MAX, description="Printable characters.", extra={"parse": read_name}),
]
State = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=STATE_MAX,
        description="Printable characters; not `expired`, which expiring sets.",
        extra={"parse": read_state},
    ),
]
Instant = Annotated[
    datetime,
    Meta(
        description="A time of RFC 3339 with its zone, or a date, which means its midnight in UTC.",
        examples=["2026-11-22T10:00:00Z", "2026-11-22"],
        extra={"parse": read_instant},
    ),
]
Data = Annotated[
    dict[str, Any],
    Meta(description="Not encrypted. Changed by JSON Merge Patch (RFC 7396).", extra={"parse": read_data}),
]
Sensitive = Annotated[
    dict[str, Any],
    Meta(
        description="Encrypted. Changed by JSON Merge Patch; null drops all of it.",
        extra={"must": "must be a JSON object"},
    ),
]
Version = Annotated[
    int, Meta(ge=1, description="The version that the change was made from.", extra={"parse": read_version})
]
Limit = Annotated[int, Meta(ge=1, le=LIMIT_MAX, extra={"parse": read_limit})]


class RoomPath(Fields, frozen=True, kw_only=True):
    """Which room."""

    id: RoomId


class RoomFields(Fields, frozen=True, kw_only=True):
    """What a room may be given at any time; null clears it."""

    user_id: OtherId | UnsetType | None = UNSET
    meeting_id: OtherId | UnsetType | None = UNSET
    started_at: Instant | UnsetType | None = UNSET
    ended_at: Instant | UnsetType | None = UNSET
    expires_at: Instant | UnsetType | None = UNSET
    data: Data | UnsetType = UNSET
    sensitive: Sensitive | UnsetType | None = UNSET


class NewRoom(RoomFields, frozen=True, kw_only=True):
    """A new room. Only its name is needed; an `id` of one's own makes creating repeatable."""

    id: OtherId | None = None
    room_name: Name
    state: State | None = None

    def change(self) -> Change:
        """What it holds."""
        return _change({"state": self.state or CREATED} | _given_fields(self))


class RoomChange(RoomFields, frozen=True, kw_only=True):
    """What is to be changed of a room; what is not named stays."""

    version: Version | None = None
    room_name: Name | UnsetType = UNSET
    state: State | UnsetType = UNSET

    def change(self, if_match: str | None) -> tuple[Change, int | None]:
        """The change, and the version that it was made from (None: whichever is the newest)."""
        tag = _tag(if_match)
        if self.version is not None and tag is not None and self.version != tag:
            raise invalid("version", "and the header If-Match name two versions")
        given = _given_fields(self)
        if not given:
            raise ApiError(400, "missing_field", f"Nothing to change: give one of {', '.join(_CHANGEABLE)}.")
        return _change(given), tag if self.version is None else self.version


class RoomQuery(Fields, frozen=True, kw_only=True):
    """How one room is shown."""

    include: (
        Annotated[
            Literal["sensitive"],
            Meta(
                description="Adds the sensitive fields; needs the permission `rooms.read_sensitive` too.",
                extra={"must": "can be 'sensitive' only"},
            ),
        ]
        | UnsetType
    ) = UNSET


class RoomListQuery(Fields, frozen=True, kw_only=True):
    """Which rooms, and how many of them."""

    room_name: Name | UnsetType = UNSET
    user_id: OtherId | UnsetType = UNSET
    meeting_id: OtherId | UnsetType = UNSET
    limit: Limit = LIMIT
    after: OtherId | UnsetType = UNSET
    """The `last_id` of the page before."""

    def to_filter(self) -> RoomFilter:
        """The rooms that are asked for."""
        return RoomFilter(self.room_name or None, self.user_id or None, self.meeting_id or None)


def _given_fields(fields: Fields) -> dict[str, Any]:
    """The fields of a room that a request names; null is a value, but for a state, which is never null."""
    given = {name: getattr(fields, name) for name in _CHANGEABLE}
    return {
        name: value for name, value in given.items() if value is not UNSET and not (name == "state" and value is None)
    }


def _change(given: dict[str, Any]) -> Change:
    columns = {name: value for name, value in given.items() if name not in ("data", "sensitive")}
    clear = "sensitive" in given and given["sensitive"] is None
    return Change(columns, given.get("data"), given.get("sensitive"), clear)


def _tag(if_match: str | None) -> int | None:
    """The version in `If-Match: "3"`; None without the header, and for `*`."""
    if if_match is None or if_match.strip() == "*":
        return None
    digits = if_match.strip().removeprefix('"').removesuffix('"')
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 9):
        raise invalid("If-Match", "must be the ETag of the room, its version in quotes")
    return int(digits)
