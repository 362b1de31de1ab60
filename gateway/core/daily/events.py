"""What Daily.co's events say, as plain facts (facts/daily.md §4, §5). Pure.

Tolerant where the facts are: fields may be missing, numbers may be whole or not, and a type that nobody knows says
nothing. What a fact needs and is not there makes the event unreadable, which is for a person to see.
"""

import hashlib
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NamedTuple

import msgspec

from gateway.core.lenient_json import repaired
from pricing.readers.text import storable

REST: Final = 1
"""How good a value from the REST API is: to about 15 seconds."""
WEBHOOK: Final = 2
"""How good a webhook's is: exact."""
API_MEETING: Final = "api.meeting"
"""Type of an event of our own: one meeting as `GET /meetings` tells it."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_INSTANT_MAX: Final = Decimal(4_102_444_800)  # the year 2100
TEXT_CHARS_MAX: Final = 500
UNKNOWN: Final = "unknown"
"""Type of an event that names none."""
UNREADABLE: Final = "unreadable"
"""Type of what is signed and no event."""


class Unreadable(ValueError):
    """An event that does not say what its type must say; the message names the field."""


class SessionSeen(NamedTuple):
    """A meeting has begun, or has ended."""

    daily_id: str
    room: str
    started_at: datetime
    ended_at: datetime | None
    rank: int


class PersonSeen(NamedTuple):
    """Somebody has come, or has left."""

    session_id: str
    """Of one connection: who comes again has another."""
    room: str
    joined_at: datetime
    left_at: datetime | None
    name: str | None
    user_id: str | None
    """From the token; Daily's own id where there was none."""
    owner: bool
    rank: int
    daily_id: str | None = None
    """The meeting, where the event says it."""


class RecordingSeen(NamedTuple):
    """A recording is ready."""

    id: str
    room: str
    started_at: datetime
    kind: str | None
    duration_seconds: int | None


class TranscriptSeen(NamedTuple):
    """A transcript is ready."""

    id: str
    daily_id: str
    duration_seconds: int | None


Fact = SessionSeen | PersonSeen | RecordingSeen | TranscriptSeen


class Envelope(msgspec.Struct):
    """What every event has around it."""

    type: str = ""
    id: str = ""
    payload: Any = None
    event_ts: Any = None


_envelope: Final = msgspec.json.Decoder(Envelope)


def envelope_of(body: bytes) -> Envelope:
    """The envelope of anything: what cannot be read is kept for a person to see, under the type `unreadable`."""
    try:
        return read_envelope(body)
    except Unreadable:
        return Envelope(UNREADABLE, _id_of(body))


def read_envelope(body: bytes) -> Envelope:
    """The envelope; one without an id is known by its bytes. Raises Unreadable."""
    try:
        envelope = _envelope.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        envelope = _repaired_envelope(body)
    if not 0 < len(envelope.id) <= TEXT_CHARS_MAX or storable(envelope.id) != envelope.id:
        envelope.id = _id_of(body)
    if not 0 < len(envelope.type) <= TEXT_CHARS_MAX or storable(envelope.type) != envelope.type:
        envelope.type = UNKNOWN
    return envelope


def _repaired_envelope(body: bytes) -> Envelope:
    """Of a body with half an emoji in it, or with members of odd types. Raises Unreadable."""
    try:
        members = msgspec.json.decode(repaired(body), type=dict[str, Any])
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"not a JSON object with a type: {type(error).__name__}") from None
    kind, event_id = (value if isinstance(value := members.get(name), str) else "" for name in ("type", "id"))
    return Envelope(kind, event_id, members.get("payload"), members.get("event_ts"))


def _id_of(body: bytes) -> str:
    return f"sha256-{hashlib.sha256(body).hexdigest()}"


def occurred_at(envelope: Envelope) -> datetime | None:
    """When Daily sent it, as far as it says."""
    try:
        return _instant({"event_ts": envelope.event_ts}, "event_ts")
    except Unreadable:
        return None


def facts_of(envelope: Envelope) -> list[Fact]:
    """What an event says that we keep; nothing for types that say nothing of the kind. Raises Unreadable."""
    payload = envelope.payload
    if envelope.type == UNKNOWN:
        raise Unreadable(f"type must be text of 1 to {TEXT_CHARS_MAX} characters")
    read = _READERS.get(envelope.type)
    if read is None:
        return []
    if not isinstance(payload, dict):
        raise Unreadable("payload is not an object")
    return read(payload)


def _started(payload: dict[str, Any]) -> list[Fact]:
    return [
        SessionSeen(_text(payload, "meeting_id"), _text(payload, "room"), _instant(payload, "start_ts"), None, WEBHOOK)
    ]


def _ended(payload: dict[str, Any]) -> list[Fact]:
    began, ends = _instant(payload, "start_ts"), _instant(payload, "end_ts")
    return [SessionSeen(_text(payload, "meeting_id"), _text(payload, "room"), began, max(began, ends), WEBHOOK)]


def _joined(payload: dict[str, Any]) -> list[Fact]:
    return [_person(payload, None)]


def _left(payload: dict[str, Any]) -> list[Fact]:
    joined = _instant(payload, "joined_at")
    return [_person(payload, joined + _duration(payload, "duration"))]


def _person(payload: dict[str, Any], left_at: datetime | None) -> PersonSeen:
    return PersonSeen(
        session_id=_text(payload, "session_id"),
        room=_text(payload, "room"),
        joined_at=_instant(payload, "joined_at"),
        left_at=left_at,
        name=_maybe(payload, "user_name"),
        user_id=_maybe(payload, "user_id"),
        owner=payload.get("owner") is True,
        rank=WEBHOOK,
    )


def _recording(payload: dict[str, Any]) -> list[Fact]:
    seconds = payload.get("duration")
    return [
        RecordingSeen(
            _text(payload, "recording_id"),
            _text(payload, "room_name"),
            _instant(payload, "start_ts"),
            _maybe(payload, "type"),
            None if seconds is None else _whole(_duration(payload, "duration")),
        )
    ]


def _transcript(payload: dict[str, Any]) -> list[Fact]:
    seconds = payload.get("duration")
    return [
        TranscriptSeen(
            _text(payload, "id"),
            _text(payload, "mtg_session_id"),
            None if seconds is None else _whole(_duration(payload, "duration")),
        )
    ]


def _of_rest(payload: dict[str, Any]) -> list[Fact]:
    """A meeting with its people, as `GET /meetings` has it."""
    daily_id, room, began = _text(payload, "id"), _text(payload, "room"), _instant(payload, "start_time")
    ongoing = payload.get("ongoing") is True
    ended = None if ongoing else began + _duration(payload, "duration")
    facts: list[Fact] = [SessionSeen(daily_id, room, began, ended, REST)]
    people = payload.get("participants")
    for person in people if isinstance(people, list) else []:
        if not isinstance(person, dict):
            raise Unreadable("participants holds something that is no object")
        joined = _instant(person, "join_time")
        left = None if ongoing or person.get("duration") is None else joined + _duration(person, "duration")
        session_id, name, user_id = (
            _text(person, "participant_id"),
            _maybe(person, "user_name"),
            _maybe(person, "user_id"),
        )
        facts.append(PersonSeen(session_id, room, joined, left, name, user_id, False, REST, daily_id))
    return facts


_READERS: Final = {
    "meeting.started": _started,
    "meeting.ended": _ended,
    "participant.joined": _joined,
    "participant.left": _left,
    "recording.ready-to-download": _recording,
    "transcript.ready-to-download": _transcript,
    API_MEETING: _of_rest,
}


def _text(payload: dict[str, Any], name: str) -> str:
    value = payload.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= TEXT_CHARS_MAX:
        raise Unreadable(f"{name} must be text of 1 to {TEXT_CHARS_MAX} characters")
    return storable(value)


def _maybe(payload: dict[str, Any], name: str) -> str | None:
    value = payload.get(name)
    if not isinstance(value, str) or not value:
        return None
    return storable(value[:TEXT_CHARS_MAX])


def _number(payload: dict[str, Any], name: str) -> Decimal:
    value = payload.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise Unreadable(f"{name} must be a number of seconds")
    try:
        number = Decimal(str(value))  # of a float: the digits that Daily wrote
    except InvalidOperation:
        raise Unreadable(f"{name} must be a number of seconds") from None
    if not number.is_finite() or not 0 <= number <= _INSTANT_MAX:
        raise Unreadable(f"{name} is no number of seconds that makes sense")
    return number


def _instant(payload: dict[str, Any], name: str) -> datetime:
    return _EPOCH + _span(_number(payload, name))


def _duration(payload: dict[str, Any], name: str) -> timedelta:
    span = _span(_number(payload, name))
    if span > timedelta(days=3660):
        raise Unreadable(f"{name} is longer than any meeting")
    return span


def _span(seconds: Decimal) -> timedelta:
    return timedelta(microseconds=int(seconds.scaleb(6).to_integral_value()))


def _whole(span: timedelta) -> int:
    return round(span.total_seconds())
