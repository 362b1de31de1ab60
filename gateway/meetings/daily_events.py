"""What Daily.co's events say, as plain facts (Daily.co's docs). Pure.

Tolerant where the facts are: fields may be missing, numbers may be whole or not, and a type that nobody knows says
nothing. What a fact needs and is not there makes the event unreadable, which is for a person to see.
"""

import hashlib
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec

from gateway.meetings import fields
from gateway.meetings.fields import TEXT_CHARS_MAX, UnreadableEvent
from gateway.meetings.lenient_json import repair
from pricing.readers.text import storable

REST: Final = 1
"""How good a value from the REST API is: to about 15 seconds."""
WEBHOOK: Final = 2
"""How good a webhook's is: exact."""
API_MEETING: Final = "api.meeting"
"""Type of an event of our own: one meeting as `GET /meetings` tells it."""
UNKNOWN: Final = "unknown"
"""Type of an event that names none."""
UNREADABLE: Final = "unreadable"
"""Type of what is signed and no event."""


class SessionSeen(NamedTuple):
    """A meeting has begun, or has ended."""

    daily_id: str
    room: str
    started_at: datetime | None
    """None: the event says only when it ended."""
    ended_at: datetime | None
    rank: int
    listed: bool = False
    """All its people are told, now that it has ended: whoever is not among them was not there."""


class PersonSeen(NamedTuple):
    """Somebody has come, or has left: of the whole connection, or of one meeting where `daily_id` names it."""

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
    except UnreadableEvent:
        return Envelope(UNREADABLE, _id_of(body))


def read_envelope(body: bytes) -> Envelope:
    """The envelope; one without an id is known by its bytes. Raises UnreadableEvent."""
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
    """Of a body with half an emoji in it, or with members of odd types. Raises UnreadableEvent."""
    try:
        members = msgspec.json.decode(repair(body), type=dict[str, Any])
    except (ValueError, RecursionError) as error:
        raise UnreadableEvent(f"not a JSON object with a type: {type(error).__name__}") from None
    kind, event_id = (value if isinstance(value := members.get(name), str) else "" for name in ("type", "id"))
    return Envelope(kind, event_id, members.get("payload"), members.get("event_ts"))


def _id_of(body: bytes) -> str:
    return f"sha256-{hashlib.sha256(body).hexdigest()}"


def occurred_at(envelope: Envelope) -> datetime | None:
    """When Daily sent it, as far as it says."""
    try:
        return fields.instant({"event_ts": envelope.event_ts}, "event_ts")
    except UnreadableEvent:
        return None


def facts_of(envelope: Envelope) -> list[Fact]:
    """What an event says that we keep; nothing for types that say nothing of the kind. Raises UnreadableEvent."""
    payload = envelope.payload
    if envelope.type == UNKNOWN:
        raise UnreadableEvent(f"type must be text of 1 to {TEXT_CHARS_MAX} characters")
    read = _READERS.get(envelope.type)
    if read is None:
        return []
    if not isinstance(payload, dict):
        raise UnreadableEvent("payload is not an object")
    return read(payload, occurred_at(envelope))


def _started(payload: dict[str, Any], _: datetime | None) -> list[Fact]:
    daily_id, room = fields.text(payload, "meeting_id"), _room(payload)
    return [SessionSeen(daily_id, room, fields.instant(payload, "start_ts"), None, WEBHOOK)]


def _ended(payload: dict[str, Any], _: datetime | None) -> list[Fact]:
    began = None if payload.get("start_ts") is None else fields.instant(payload, "start_ts")
    ends = fields.instant(payload, "end_ts")
    return [
        SessionSeen(
            fields.text(payload, "meeting_id"),
            _room(payload),
            began,
            ends if began is None else max(began, ends),
            WEBHOOK,
        )
    ]


def _joined(payload: dict[str, Any], _: datetime | None) -> list[Fact]:
    return [_person(payload, None)]


def _left(payload: dict[str, Any], sent_at: datetime | None) -> list[Fact]:
    joined = fields.instant(payload, "joined_at")
    if payload.get("duration") is not None:
        return [_person(payload, joined + fields.duration(payload, "duration"))]
    # It is sent as soon as they have left.
    return [_person(payload, None if sent_at is None else max(joined, sent_at))]


def _person(payload: dict[str, Any], left_at: datetime | None) -> PersonSeen:
    return PersonSeen(
        session_id=fields.text(payload, "session_id"),
        room=_room(payload),
        joined_at=fields.instant(payload, "joined_at"),
        left_at=left_at,
        name=fields.optional_text(payload, "user_name"),
        user_id=fields.optional_text(payload, "user_id"),
        owner=payload.get("owner") is True,
        rank=WEBHOOK,
    )


def _room(payload: dict[str, Any]) -> str:
    """Events have called it both."""
    return fields.text(payload, "room" if payload.get("room") is not None else "room_name")


def _recording(payload: dict[str, Any], _: datetime | None) -> list[Fact]:
    return [
        RecordingSeen(
            fields.text(payload, "recording_id"),
            fields.text(payload, "room_name"),
            fields.instant(payload, "start_ts"),
            fields.optional_text(payload, "type"),
            _seconds(payload),
        )
    ]


def _transcript(payload: dict[str, Any], _: datetime | None) -> list[Fact]:
    return [TranscriptSeen(fields.text(payload, "id"), fields.text(payload, "mtg_session_id"), _seconds(payload))]


def _seconds(payload: dict[str, Any]) -> int | None:
    return None if payload.get("duration") is None else fields.whole_seconds(fields.duration(payload, "duration"))


def _of_rest(payload: dict[str, Any], _: datetime | None) -> list[Fact]:
    """A meeting with its people, as `GET /meetings` has it."""
    daily_id, room = fields.text(payload, "id"), fields.text(payload, "room")
    began, ongoing = fields.instant(payload, "start_time"), payload.get("ongoing") is True
    ended = None if ongoing else began + fields.duration(payload, "duration")
    people = payload.get("participants")
    listed = isinstance(people, list) and not ongoing and payload.get("whole") is not False
    facts: list[Fact] = [SessionSeen(daily_id, room, began, ended, REST, listed)]
    for person in people if isinstance(people, list) else []:
        if not isinstance(person, dict):
            raise UnreadableEvent("participants holds something that is not an object")
        joined = fields.instant(person, "join_time")
        left = None if ongoing or person.get("duration") is None else joined + fields.duration(person, "duration")
        session_id, name, user_id = (
            fields.text(person, "participant_id"),
            fields.optional_text(person, "user_name"),
            fields.optional_text(person, "user_id"),
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
