"""The Daily.co stand-in's world: rooms, sessions, people, recordings, and the events that tell about them.

Holds no HTTP. Follows Daily.co's docs. Everything may be given an instant of
its own, so that a test can tell a life. What Daily.co itself makes of who comes and goes is in rooms.py.
"""

import base64
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import msgspec

Emit = Callable[[dict[str, Any]], None]
"""Takes an event that is to be told."""


class Faults(msgspec.Struct, forbid_unknown_fields=True):
    """What Daily.co does that nobody wants, until it is told otherwise."""

    duplicate: bool = False
    """Every event is told twice."""
    hold: bool = False
    """Events are kept back until they are released, shuffled."""
    drop: int = 0
    """So many events are never told."""
    sparse: bool = False
    """Fields that may be missing are."""
    milliseconds: bool = False
    """The timestamp that is signed is in milliseconds."""
    rewritten: bool = False
    """The document that is sent is spaced otherwise than the one that is signed."""
    old_spelling: bool = False
    """`clourd-recording-err` for the action of a recording's error."""
    coarse: bool = False
    """REST tells times to 15 seconds."""
    short_lists: int | None = None
    """`GET /meetings` names at most so many people of each meeting."""
    encoded_user_ids: bool = False
    """REST tells another form of the user_id than webhooks do."""
    whole_stays: bool = False
    """REST tells when a connection began, also where the session that it tells about began later."""
    bare_ends: bool = False
    """participant.left comes without duration, meeting.ended without start_ts."""
    room_names: bool = False
    """participant.* has `room_name` instead of `room`."""


@dataclass
class Participant:
    """One connection to a session."""

    session_id: str
    name: str
    user_id: str
    owner: bool
    joined_at: float
    left_at: float | None = None
    connected_at: float | None = None
    """When the connection began, where that was in an earlier session of the room."""


@dataclass
class LiveSession:
    """A meeting."""

    id: str
    room: str
    start: float
    end: float | None = None
    people: list[Participant] = field(default_factory=list)


@dataclass
class Recording:
    """Of a room."""

    id: str
    room: str
    session_id: str
    start: float
    duration: float


@dataclass
class Transcript:
    """Of a session."""

    id: str
    session_id: str
    duration: float


class Unknown(ValueError):
    """There is no such session, or nobody like that in it."""


class World:
    """All of it. `clock` gives Unix seconds."""

    def __init__(self, emit: Emit, *, clock: Callable[[], float]) -> None:
        self._emit: Final = emit
        self._clock: Final = clock
        self.sessions: Final[dict[str, LiveSession]] = {}
        self.recordings: Final[dict[str, Recording]] = {}
        self.transcripts: Final[dict[str, Transcript]] = {}
        self.faults = Faults()
        self._held: list[dict[str, Any]] = []

    def start(self, room: str, at: float | None = None, meeting_id: str | None = None) -> LiveSession:
        """A session begins."""
        session = LiveSession(meeting_id or new_id(), room, self.at(at))
        self.sessions[session.id] = session
        payload = {"start_ts": session.start, "meeting_id": session.id, "room": room}
        self._tell("meeting.started", f"met-sta-{session.id}", payload)
        return session

    def end(self, meeting_id: str, at: float | None = None) -> LiveSession:
        """It ends."""
        session = self.session(meeting_id)
        session.end = self.at(at)
        payload = {"start_ts": session.start, "end_ts": session.end, "meeting_id": session.id, "room": session.room}
        if self.faults.bare_ends:
            del payload["start_ts"]
        self._tell("meeting.ended", f"met-end-{session.id}", payload)
        return session

    def join(
        self, meeting_id: str, name: str, user_id: str | None = None, *, owner: bool = False, at: float | None = None
    ) -> Participant:
        """Somebody comes."""
        session, session_id = self.session(meeting_id), new_id()
        person = Participant(session_id, name, user_id or session_id, owner, self.at(at))
        session.people.append(person)
        self.tell_joined(session.room, person)
        return person

    def leave(self, meeting_id: str, session_id: str, at: float | None = None) -> Participant:
        """They go."""
        session = self.session(meeting_id)
        person = next((one for one in session.people if one.session_id == session_id), None)
        if person is None:
            raise Unknown(f"nobody with the session_id {session_id!r} is in this meeting")
        person.left_at = self.at(at)
        self.tell_left(session.room, person, person.left_at)
        return person

    def tell_joined(self, room: str, person: Participant) -> None:
        """The webhook about who comes."""
        self._tell("participant.joined", f"ptcpt-join-{person.session_id}", self._person(room, person))

    def tell_left(self, room: str, person: Participant, left_at: float) -> None:
        """The webhook about who goes: of the whole connection, whatever sessions it spans."""
        payload = self._person(room, person) | {"duration": left_at - person.joined_at}
        if self.faults.bare_ends:
            del payload["duration"]
        self._tell("participant.left", f"ptcpt-left-{person.session_id}", payload, sent_at=left_at)

    def record(self, meeting_id: str, at: float | None = None, duration: float = 60.0, *, fails: bool = False) -> str:
        """A recording is ready, or has failed; its id."""
        session, recording_id = self.session(meeting_id), new_id()
        if fails:
            action = "clourd-recording-err" if self.faults.old_spelling else "cloud-recording-error"
            payload: dict[str, Any] = {
                "action": action, "error_msg": "failed", "instance_id": new_id(), "room_name": session.room,
                "timestamp": str(self.at(at)),
            }  # fmt: skip
            self._tell("recording.error", f"rec-err-{recording_id}", payload)
            return recording_id
        recording = Recording(recording_id, session.room, session.id, self.at(at), duration)
        self.recordings[recording_id] = recording
        payload = {
            "type": "cloud", "recording_id": recording_id, "room_name": session.room, "start_ts": recording.start,
            "status": "finished", "duration": duration, "s3_key": f"sandbox/{recording_id}",
        }  # fmt: skip
        if not self.faults.sparse:
            payload |= {"max_participants": len(session.people), "tracks": None}
        self._tell("recording.ready-to-download", f"rec-rtd-{recording_id}", payload)
        return recording_id

    def transcribe(self, meeting_id: str, duration: float = 60.0) -> str:
        """A transcript is ready; its id."""
        session, transcript_id = self.session(meeting_id), new_id()
        self.transcripts[transcript_id] = Transcript(transcript_id, session.id, duration)
        payload = {
            "id": transcript_id, "room_id": new_id(), "mtg_session_id": session.id, "duration": duration,
            "status": "t_completed", "out_params": {"s3": {"key": f"sandbox/{transcript_id}"}},
        }  # fmt: skip
        self._tell("transcript.ready-to-download", f"tr-rtd-{transcript_id}", payload)
        return transcript_id

    def add(self, session: LiveSession) -> None:
        """A whole meeting of the past, which nobody is told about."""
        self.sessions[session.id] = session

    def session(self, meeting_id: str) -> LiveSession:
        """Raises Unknown."""
        if meeting_id not in self.sessions:
            raise Unknown(f"there is no meeting {meeting_id!r}")
        return self.sessions[meeting_id]

    def release(self, seed: int = 0, *, reversed: bool = False) -> int:  # noqa: A002 - as a test says it
        """Tells what was held back, in another order; how many."""
        held, self._held = self._held, []
        if reversed:
            held.reverse()
        else:
            Random(seed).shuffle(held)  # noqa: S311 - an order, no secret
        for event in held:
            self._emit(event)
        return len(held)

    def as_rest(self, session: LiveSession, *, people: bool, most: int | None = None) -> dict[str, Any]:
        """A meeting as `GET /meetings` tells it, with `most` people at most."""
        end = session.end if session.end is not None else self._clock()
        told: dict[str, Any] = {
            "id": session.id,
            "room": session.room,
            "start_time": self._rest_time(session.start),
            "duration": self._rest_time(end) - self._rest_time(session.start),
            "ongoing": session.end is None,
            "max_participants": _most_at_once(session),
        }
        if people:
            told["participants"] = [self.person_as_rest(session, person) for person in session.people[:most]]
        return told

    def person_as_rest(self, session: LiveSession, person: Participant) -> dict[str, Any]:
        """Somebody as REST tells it."""
        end = session.end if session.end is not None else self._clock()
        left = person.left_at if person.left_at is not None else end
        whole = self.faults.whole_stays and person.connected_at is not None
        joined = person.connected_at if whole and person.connected_at is not None else person.joined_at
        encoded = base64.b64encode(person.user_id.encode()).decode()
        return {
            "user_id": encoded if self.faults.encoded_user_ids else person.user_id,
            "participant_id": person.session_id,
            "user_name": person.name,
            "join_time": self._rest_time(joined),
            "duration": self._rest_time(left) - self._rest_time(joined),
        }

    def _rest_time(self, at: float) -> int:
        return int(at) // 15 * 15 if self.faults.coarse else int(at)

    def _person(self, room: str, person: Participant) -> dict[str, Any]:
        payload: dict[str, Any] = {
            "room_name" if self.faults.room_names else "room": room, "session_id": person.session_id,
            "user_id": person.user_id, "user_name": person.name, "joined_at": person.joined_at, "owner": person.owner,
        }  # fmt: skip
        if not self.faults.sparse:
            payload |= {"networkQualityState": "unknown", "will_eject_at": None, "permissions": {"canSend": True}}
        return payload

    def _tell(self, kind: str, event_id: str, payload: dict[str, Any], sent_at: float | None = None) -> None:
        sent_at = self._clock() if sent_at is None else sent_at
        event = {"version": "1.0.0", "type": kind, "id": event_id, "payload": payload, "event_ts": sent_at}
        if self.faults.drop:
            self.faults.drop -= 1
            return
        for _ in range(2 if self.faults.duplicate else 1):
            if self.faults.hold:
                self._held.append(event)
            else:
                self._emit(event)

    def at(self, at: float | None) -> float:
        return round(self._clock(), 3) if at is None else at


def new_id() -> str:
    """In Daily.co's form."""
    raw = secrets.token_hex(16)
    return f"{raw[:8]}-{raw[8:12]}-{raw[12:16]}-{raw[16:20]}-{raw[20:]}"


def _most_at_once(session: LiveSession) -> int:
    """`max_participants`: how many were there at one time."""
    ends = [(person.left_at, -1) for person in session.people if person.left_at is not None]
    there = most = 0
    for _, step in sorted([*((person.joined_at, 1) for person in session.people), *ends]):
        there += step
        most = max(most, there)
    return most
