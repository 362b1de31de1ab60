"""The mapping from the columns of an SQLite table to the fields of a room: read from a map, or guessed. Pure.

A column that nobody has mapped is sealed: of what is not known the worst is assumed.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from gateway.kit.errors import OptionError
from gateway.kit.strict_json import check
from gateway.rooms.importing.values import Value, instant_of, json_value, key_text, text_of, uuid_of
from gateway.rooms.room import CREATED, name_fault, state_fault

KEY: Final = "source_key"
IGNORE: Final = "ignore"
SEALED: Final = "sealed."
DATA: Final = "data."
INSTANTS: Final = ("started_at", "ended_at", "created_at", "expires_at")
COLUMNS: Final = ("room_name", "user_email", "user_id", "meeting_id", "state", *INSTANTS)
_FREE: Final = re.compile(r"(sealed|data)\.[^\x00-\x1f\x7f]{1,200}")
_KNOWN: Final = f"{', '.join(COLUMNS)}, {KEY}, {DATA}<name>, {SEALED}<name> or {IGNORE}"
_NAMES: Final = {
    "room_name": ("room_name", "room", "roomname", "daily_room_name"),
    "user_email": ("user_email", "owner_email", "host_email"),
    "user_id": ("user_id", "owner_id", "userid"),
    "meeting_id": ("meeting_id", "meetingid"),
    "state": ("state", "status"),
    "started_at": ("started_at", "start_time", "started"),
    "ended_at": ("ended_at", "end_time", "ended"),
    "created_at": ("created_at", "created"),
    "expires_at": ("expires_at", "expires"),
}
"""Column names that say what they are; a bare `name` or `email` may be a participant's."""
SOURCE_MAX: Final = 500
"""Characters of a source id at most: it is indexed."""


class RoomMap(NamedTuple):
    """How the rows of one table are read."""

    source: str
    """What a source id begins with: prefix and table."""
    targets: dict[str, str]
    """Column → target, every column of the table."""
    states: dict[str, str]
    """State in the file → state of the room, where they differ."""
    key: tuple[str, ...]
    """The columns whose values tell a row from every other."""


class Mapped(NamedTuple):
    """A row as a room, not yet sealed."""

    source_id: str
    room_name: str
    state: str
    user_email: str | None
    user_id: str | None
    meeting_id: str | None
    instants: dict[str, datetime | None]
    data: dict[str, Any]
    sensitive: dict[str, Any] | None
    """None where the table has no sealed column."""

    def __repr__(self) -> str:
        return f"Mapped({self.source_id})"


class Unmappable(Exception):
    """A row that cannot become a room; the message says which column and why, never with what in it."""


def read_map(given: Mapping[str, Any], columns: Sequence[str], key: Sequence[str], table: str) -> RoomMap:
    """The map that a TOML file spells, over the columns that the table really has. `key`: its primary key.

    Raises OptionError naming the entry and what would be right.
    """
    unknown = set(given) - {"table", "prefix", "columns", "states"}
    if unknown:
        raise OptionError(f"--config: unknown: {', '.join(sorted(unknown))}; known are table, prefix, columns, states")
    wanted, states, prefix = given.get("columns", {}), given.get("states", {}), given.get("prefix", "")
    if not isinstance(prefix, str) or not prefix.isprintable() or len(prefix) > 100:
        raise OptionError("--config: prefix must be printable text, 100 characters at most")
    for name, value in (("columns", wanted), ("states", states)):
        if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
            raise OptionError(f'--config: [{name}] must be a table of text, such as old = "new"')
    for state in states.values():
        if fault := state_fault(state):
            raise OptionError(f"--config: [states]: {state!r} {fault}")
    targets = _targets(wanted, columns, key)
    keys = tuple(column for column in columns if targets[column] == KEY) or tuple(key)
    return RoomMap(f"{prefix}{table}:", targets, states, keys)


def guess(columns: Sequence[str], key: Sequence[str], sample: Sequence[Sequence[Value]]) -> dict[str, str]:
    """Targets by the columns' names, as far as the rows of `sample` (in the order of `columns`) bear them out."""
    targets: dict[str, str] = {}
    for at, column in enumerate(columns):
        values = [row[at] for row in sample]
        named = (name for name, aliases in _NAMES.items() if column.lower() in aliases)
        target = next((name for name in named if name not in targets.values() and _fits(name, values)), None)
        targets[column] = target or (KEY if tuple(key) == (column,) else f"{SEALED}{column}")
    return targets


def map_row(mapping: RoomMap, values: Mapping[str, Value]) -> Mapped:
    """A row, by the names of its columns, as a room. Raises Unmappable."""
    found: dict[str, Any] = {}
    data: dict[str, Any] = {}
    sensitive: dict[str, Any] = {}
    for column, target in mapping.targets.items():
        try:
            if target in COLUMNS:
                found[target] = _column(mapping, target, values[column])
            elif target.startswith(DATA):
                data[target.removeprefix(DATA)] = value = json_value(values[column])
                check(value)
            elif target.startswith(SEALED):
                sensitive[target.removeprefix(SEALED)] = json_value(values[column])
        except ValueError as error:
            raise Unmappable(f"column {column!r} ({target}): {error}") from None
    has_sealed = any(target.startswith(SEALED) for target in mapping.targets.values())
    return Mapped(
        source_id(mapping, values),
        found["room_name"],
        found.get("state", CREATED),
        found.get("user_email"),
        found.get("user_id"),
        found.get("meeting_id"),
        {name: found.get(name) for name in INSTANTS},
        data,
        sensitive if has_sealed else None,
    )


def source_id(mapping: RoomMap, values: Mapping[str, Value]) -> str:
    """Where the row came from, the same in every run. Raises Unmappable."""
    try:
        found = mapping.source + key_text(values[column] for column in mapping.key)
        check(found)
    except ValueError as error:
        raise Unmappable(f"the key ({', '.join(mapping.key)}): {error}") from None
    if len(found) > SOURCE_MAX:
        raise Unmappable(f"the key ({', '.join(mapping.key)}) is longer than {SOURCE_MAX} characters")
    return found


def _targets(wanted: Mapping[str, str], columns: Sequence[str], key: Sequence[str]) -> dict[str, str]:
    missing = [column for column in wanted if column not in columns]
    if missing:
        raise OptionError(f"--config: the table has no column {missing[0]!r}; it has {', '.join(columns)}")
    for column, target in wanted.items():
        if target not in (*COLUMNS, KEY, IGNORE) and not _FREE.fullmatch(target):
            raise OptionError(f"--config: column {column!r}: {target!r} is not a target; known are {_KNOWN}")
    targets = {
        column: wanted.get(column, KEY if column in key and KEY not in wanted.values() else f"{SEALED}{column}")
        for column in columns
    }
    used = [target for target in targets.values() if target not in (KEY, IGNORE)]
    twice = next((target for target in used if used.count(target) > 1), None)
    if twice is not None:
        both = [column for column, target in targets.items() if target == twice]
        raise OptionError(f"--config: columns {', '.join(map(repr, both))} are both {twice}")
    if "room_name" not in used:
        raise OptionError(f"--config: no column is the room_name; the table has {', '.join(columns)}")
    if {"user_email", "user_id"} <= set(used):
        raise OptionError("--config: user_email and user_id are both mapped: one of them says whose a room is")
    return targets


def _column(mapping: RoomMap, target: str, value: Value) -> Any:
    if target in INSTANTS:
        return instant_of(value)
    if target in ("user_id", "meeting_id"):
        return uuid_of(value)
    text = text_of(value)
    if target == "user_email":
        return text.strip().lower() or None if text is not None else None
    if target == "state":
        state = CREATED if text is None else mapping.states.get(text, text)
        return _without(state_fault(state), state)
    if text is None:
        raise ValueError("is NULL, and a room needs a name")
    return _without(name_fault(text), text)


def _without(fault: str | None, text: str) -> str:
    if fault:
        raise ValueError(fault)
    return text


def _fits(target: str, values: Iterable[Value]) -> bool:
    """Whether these values can be what the column's name says."""
    try:
        for value in values:
            if target in INSTANTS:
                instant_of(value)
            elif target in ("user_id", "meeting_id"):
                uuid_of(value)
            elif target == "state":
                _without(state_fault(text_of(value) or CREATED), "")
            else:
                text_of(value)
    except ValueError:
        return False
    return True
