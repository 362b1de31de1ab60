"""What events say, read tolerantly where Daily.co's docs are loose, and never wrongly."""

import contextlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.meetings.daily_events import (
    REST,
    WEBHOOK,
    Fact,
    PersonSeen,
    RecordingSeen,
    SessionSeen,
    TranscriptSeen,
    envelope_of,
    facts_of,
    occurred_at,
    read_envelope,
)
from gateway.meetings.fields import UnreadableEvent

AT = datetime(2024, 2, 26, 18, 31, 19, 960000, tzinfo=UTC)
TS = 1708972279.96


DEEP = b'{"type":"meeting.started","payload":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


def facts(kind: str, **payload: Any) -> list[Fact]:
    return facts_of(read_envelope(json.dumps({"type": kind, "id": "e1", "payload": payload}).encode()))


def test_meetings() -> None:
    begun = {"meeting_id": "m", "room": "r", "start_ts": TS}
    assert facts("meeting.started", **begun) == [SessionSeen("m", "r", AT, None, WEBHOOK)]
    whole = AT.replace(microsecond=0)
    assert facts("meeting.ended", **begun | {"start_ts": 1708972279, "end_ts": 1708972379}) == [
        SessionSeen("m", "r", whole, whole + timedelta(seconds=100), WEBHOOK)
    ]
    assert facts("meeting.ended", **begun, end_ts=TS - 5) == [SessionSeen("m", "r", AT, AT, WEBHOOK)]


def test_people() -> None:
    said = {"room": "r", "session_id": "s", "user_id": "u", "user_name": "Ann\0", "joined_at": TS, "owner": True}
    (joined,) = facts("participant.joined", **said, will_eject_at=None, permissions={"canSend": ["audio"]})
    assert joined == PersonSeen("s", "r", AT, None, "Ann\ufffd", "u", True, WEBHOOK)
    (left,) = facts("participant.left", **said, duration=12.345678)
    assert isinstance(left, PersonSeen)
    assert left.left_at == AT + timedelta(seconds=12, microseconds=345678)
    (sparse,) = facts("participant.joined", room="r", session_id="s", joined_at=str(TS), user_name=None)
    assert sparse == PersonSeen("s", "r", AT, None, None, None, False, WEBHOOK)


def test_recordings_and_transcripts() -> None:
    ready = facts(
        "recording.ready-to-download", recording_id="x", room_name="r", start_ts=TS, type="cloud", duration=9.6
    )
    assert ready == [RecordingSeen("x", "r", AT, "cloud", 10)]
    assert facts("transcript.ready-to-download", id="t", mtg_session_id="m") == [TranscriptSeen("t", "m", None)]


def test_a_meeting_by_rest() -> None:
    person = {"participant_id": "s", "user_id": None, "user_name": "Ann", "join_time": 1708972280, "duration": 5}
    told = facts(
        "api.meeting", id="m", room="r", start_time=1708972279, duration=60, ongoing=False, participants=[person]
    )
    session, someone = told
    assert isinstance(session, SessionSeen)
    whole = AT.replace(microsecond=0)
    assert session == SessionSeen("m", "r", whole, whole + timedelta(seconds=60), REST, listed=True)
    assert isinstance(someone, PersonSeen)
    assert (someone.daily_id, someone.owner, someone.rank) == ("m", False, REST)
    (running,) = facts("api.meeting", id="m", room="r", start_time=1708972279, duration=60, ongoing=True)
    assert isinstance(running, SessionSeen)
    assert running.ended_at is None


@pytest.mark.parametrize(
    "kind",
    [
        "waiting-participant.joined", "waiting-participant.left", "recording.started", "recording.error",
        "transcript.started", "transcript.error", "streaming.started", "something.new",
    ],
)  # fmt: skip
def test_types_that_say_nothing_we_keep(kind: str) -> None:
    assert facts(kind, action="clourd-recording-err") == []


@pytest.mark.parametrize(
    ("kind", "payload", "field"),
    [
        ("meeting.started", {"room": "r", "start_ts": 1}, "meeting_id"),
        ("meeting.started", {"meeting_id": "m", "room": "r"}, "start_ts"),
        ("meeting.started", {"meeting_id": "m", "room": "r", "start_ts": True}, "start_ts"),
        ("meeting.started", {"meeting_id": "m", "room": "r", "start_ts": "nan"}, "start_ts"),
        ("meeting.started", {"meeting_id": "m", "room": "r", "start_ts": 1e300}, "start_ts"),
        ("meeting.started", {"meeting_id": "m" * 501, "room": "r", "start_ts": 1}, "meeting_id"),
        ("participant.left", {"room": "r", "session_id": "s", "joined_at": 1, "duration": -1}, "duration"),
        ("participant.left", {"room": "r", "session_id": "s", "joined_at": 1, "duration": 1e9}, "duration"),
        ("api.meeting", {"id": "m", "room": "r", "start_time": 1, "duration": 1, "participants": [7]}, "participants"),
    ],
)
def test_what_cannot_be_read_is_named(kind: str, payload: dict[str, Any], field: str) -> None:
    with pytest.raises(UnreadableEvent, match=field):
        facts(kind, **payload)


def test_envelopes() -> None:
    nameless = read_envelope(b'{"type":"meeting.started"}')
    assert nameless.id.startswith("sha256-")
    assert read_envelope(b'{"type":"meeting.started"}').id == nameless.id
    assert read_envelope(b'{"type":"meeting.started" }').id != nameless.id
    assert read_envelope(b'{"id":"e"}').type == "unknown"
    assert occurred_at(read_envelope(b'{"id":"e","event_ts":1708972279.96}')) == AT
    assert occurred_at(read_envelope(b'{"id":"e","event_ts":"soon"}')) is None
    for junk in (b"", b"[]", b"7", b"\xff", b'{"id":', b"[" * 5000, DEEP):
        with pytest.raises(UnreadableEvent):
            read_envelope(junk)
        kept = envelope_of(junk)
        assert (kept.type, kept.id) == ("unreadable", envelope_of(junk).id)
        assert kept.id.startswith("sha256-")
    odd = read_envelope(b'{"id":7,"type":["x"],"payload":{"a":1}}')
    assert (odd.type, odd.payload, odd.id[:7]) == ("unknown", {"a": 1}, "sha256-")
    with pytest.raises(UnreadableEvent, match="type must be text"):
        facts_of(odd)


HALF = "\\ud83d"
"""The first half of an emoji, as JSON.stringify writes it."""


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (rf"Ann {HALF}", "Ann \ufffd"),
        (rf"{HALF}{HALF}\ude00", "\ufffd\U0001f600"),
        (r"Ann\u0000", "Ann\ufffd"),
        ("Ann \x01\n", "Ann \x01\n"),
        ("Ann é \U0001f600", "Ann é \U0001f600"),
    ],
)
def test_names_that_cannot_be_kept_as_they_are(written: str, kept: str) -> None:
    body = (
        '{"type":"participant.joined","id":"e1","event_ts":1708972279.961,"payload":{"room":"r","session_id":"s",'
        f'"joined_at":1708972279.961,"user_name":"{written}"}}}}'
    )
    envelope = read_envelope(body.encode())
    assert (envelope.id, envelope.type) == ("e1", "participant.joined")
    (fact,) = facts_of(envelope)
    assert isinstance(fact, PersonSeen)
    assert (fact.name, fact.joined_at) == (kept, AT + timedelta(milliseconds=1))
    json.dumps(kept).encode()


def test_a_body_that_is_no_utf_8_is_read_as_far_as_it_is_text() -> None:
    body = b'{"type":"meeting.started","id":"e1","payload":{"meeting_id":"m","room":"r\xff","start_ts":1}}'
    (fact,) = facts_of(read_envelope(body))
    assert fact[:2] == ("m", "r\ufffd")


@given(st.sampled_from(["meeting.started", "participant.left", "api.meeting"]), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["meeting_id", "room", "start_ts", "session_id", "joined_at", "duration", "id", "start_time", "participants"]
    ), inner, max_size=6), max_leaves=10,
))  # fmt: skip
def test_any_payload_is_read_or_refused(kind: str, payload: Any) -> None:
    body = json.dumps({"type": kind, "id": "e", "payload": payload}).encode()
    with contextlib.suppress(UnreadableEvent):
        facts_of(read_envelope(body))
