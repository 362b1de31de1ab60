"""What a request about rooms says: bodies, query and If-Match, read strictly. Pure; raises ApiError 400 that names the
field, never what stands in it."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

from gateway.core.errors import ApiError, OptionError
from gateway.core.ids import is_uuid
from gateway.core.instants import parse_instant
from gateway.core.rooms import CREATED, RoomFilter, name_fault, state_fault
from gateway.core.strict_json import parse
from gateway.flows.rooms.rooms import Change

_IDS: Final = ("user_id", "meeting_id")
_TIMES: Final = ("started_at", "ended_at", "expires_at")
_CHANGEABLE: Final = ("room_name", "state", *_IDS, *_TIMES, "data", "sensitive")
LIMIT_MAX: Final = 100
LIMIT: Final = 20


class Listing(NamedTuple):
    """What a list is asked for."""

    wanted: RoomFilter
    after: str | None
    rows_max: int


def read_new(body: bytes) -> tuple[str | None, Change]:
    """The id of a new room (None: any) and what it holds."""
    fields = _object(body, {"id", *_CHANGEABLE})
    if fields.get("room_name") is None:
        raise ApiError(400, "missing_field", "'room_name' is missing.", param="room_name")
    room_id = fields.pop("id", None)
    if room_id is not None:
        room_id = uuid_of(room_id, "id")
    if fields.get("state", CREATED) is None:
        del fields["state"]
    return room_id, _change({"state": CREATED} | fields)


def read_patch(body: bytes, if_match: str | None) -> tuple[Change, int | None]:
    """A change, and the version that it was made from (None: whichever is the newest)."""
    fields = _object(body, {"version", *_CHANGEABLE})
    version = fields.pop("version", None)
    if version is not None and (type(version) is not int or version < 1):
        raise _invalid("version", "must be the room's version, a whole number from 1")
    tag = _tag(if_match)
    if version is not None and tag is not None and version != tag:
        raise _invalid("version", "and the header If-Match name two versions")
    if not fields:
        raise ApiError(400, "missing_field", f"Nothing to change: give one of {', '.join(_CHANGEABLE)}.")
    return _change(fields), tag if version is None else version


def read_listing(query: str) -> Listing:
    """The query of a list."""
    given = _query(query, ("room_name", "user_id", "meeting_id", "limit", "after"))
    limit = given.get("limit", str(LIMIT))
    if not (limit.isascii() and limit.isdigit() and len(limit) <= 3 and 1 <= int(limit) <= LIMIT_MAX):
        raise _invalid("limit", f"must be a whole number from 1 to {LIMIT_MAX}")
    user_id, meeting_id, after = (
        uuid_of(given[name], name) if name in given else None for name in ("user_id", "meeting_id", "after")
    )
    name = given.get("room_name")
    if name is not None and (fault := name_fault(name)):
        raise _invalid("room_name", fault)
    return Listing(RoomFilter(name, user_id, meeting_id), after, int(limit))


def read_include(query: str) -> bool:
    """Whether one room's sensitive fields are asked for."""
    include = _query(query, ("include",)).get("include")
    if include not in (None, "sensitive"):
        raise _invalid("include", "can be 'sensitive' only")
    return include is not None


def uuid_of(value: Any, name: str) -> str:
    """A UUID in lower case."""
    if not isinstance(value, str) or not is_uuid(value):
        raise _invalid(name, "must be a UUID")
    return value.lower()


def no_query(query: str) -> None:
    """Refuses any parameter."""
    _query(query, ())


def _query(query: str, known: Iterable[str]) -> dict[str, str]:
    names = tuple(known)
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), errors="strict", max_num_fields=20)
    except ValueError:  # UnicodeDecodeError is one
        raise ApiError(400, "invalid_query", "The query cannot be read.") from None
    for name, _ in pairs:
        if name not in names:
            allowed = f"; known are {', '.join(names)}" if names else ", this request takes none"
            raise ApiError(400, "unknown_parameter", f"Unknown query parameter{allowed}.", param=_shown(name))
    if len(dict(pairs)) != len(pairs):
        raise ApiError(400, "duplicate_parameter", "A query parameter is given more than once.")
    return dict(pairs)


def _object(body: bytes, known: set[str]) -> dict[str, Any]:
    try:
        fields = parse(body)
    except ValueError as error:
        raise ApiError(400, "invalid_json", f"The request body cannot be taken: {error}.") from None
    if not isinstance(fields, dict):
        raise ApiError(400, "invalid_json", "The request body must be a JSON object.")
    for name in fields:
        if name not in known:
            message = f"Unknown field; known are {', '.join(sorted(known))}."
            raise ApiError(400, "unknown_field", message, param=_shown(name))
    return fields


def _change(fields: Mapping[str, Any]) -> Change:
    columns: dict[str, Any] = {}
    for name, fault in (("room_name", name_fault), ("state", state_fault)):
        if name in fields:
            text = fields[name]
            wrong = fault(text) if isinstance(text, str) else "must be text"
            if wrong:
                raise _invalid(name, wrong)
            columns[name] = text
    for name in _IDS:
        if name in fields:
            columns[name] = None if fields[name] is None else uuid_of(fields[name], name)
    for name in _TIMES:
        if name in fields:
            columns[name] = _instant(fields[name], name)
    for name in ("data", "sensitive"):
        if not isinstance(fields.get(name, {}), dict | None):
            raise _invalid(name, "must be a JSON object")
    if "data" in fields and fields["data"] is None:
        raise _invalid("data", "must be a JSON object; null for one of its fields removes that")
    clear = "sensitive" in fields and fields["sensitive"] is None
    return Change(columns, fields.get("data"), fields.get("sensitive"), clear)


def _instant(value: Any, name: str) -> datetime | None:
    if value is None:
        return None
    try:
        if isinstance(value, str) and len(value) <= 40:
            return parse_instant(value, name)
    except OptionError:
        pass
    raise _invalid(name, "must be an instant with its zone, like 2026-11-22T10:00:00Z")


def _tag(if_match: str | None) -> int | None:
    """The version in `If-Match: "3"`; None without the header, and for `*`."""
    if if_match is None or if_match.strip() == "*":
        return None
    digits = if_match.strip().removeprefix('"').removesuffix('"')
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 9):
        raise _invalid("If-Match", "must be the ETag of the room, its version in quotes")
    return int(digits)


def _invalid(name: str, wrong: str) -> ApiError:
    return ApiError(400, "invalid_value", f"'{name}' {wrong}.", param=name)


def _shown(name: str) -> str:
    """A name that a client made up, as far as it is one: what was meant for a value may stand in its place."""
    return name if len(name) <= 40 and name.isascii() and name.replace("_", "").isalnum() else "?"
