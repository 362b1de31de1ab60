"""Lives of meetings as Daily.co tells them, and the rows that they must come to, for tests of their order."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from gateway.meetings.daily_events import occurred_at, read_envelope
from gateway.meetings.inbox import Inbox
from gateway.meetings.listing import MeetingListing
from gateway.meetings.worker import MeetingsWorker
from gateway.stores.postgres import Pool
from gateway.stores.webhook_inbox import WebhookEvent

T0 = datetime(2026, 11, 23, 10, tzinfo=UTC)


def at(minutes: float) -> float:
    """Unix seconds, so many minutes after T0."""
    return (T0 + timedelta(minutes=minutes)).timestamp()


def event(kind: str, event_id: str, **payload: Any) -> WebhookEvent:
    body = json.dumps(
        {"version": "1.0.0", "type": kind, "id": event_id, "payload": payload, "event_ts": at(0)}
    ).encode()
    envelope = read_envelope(body)
    return WebhookEvent(envelope.id, envelope.type, occurred_at(envelope), body)


def started(meeting: str, room: str, begin: float) -> WebhookEvent:
    return event("meeting.started", f"met-sta-{meeting}", meeting_id=meeting, room=room, start_ts=at(begin))


def ended(meeting: str, room: str, begin: float, end: float) -> WebhookEvent:
    return event(
        "meeting.ended", f"met-end-{meeting}", meeting_id=meeting, room=room, start_ts=at(begin), end_ts=at(end)
    )


def joined(
    session: str, room: str, when: float, *, name: str = "", owner: bool = False, user: str = ""
) -> WebhookEvent:
    return event(
        "participant.joined", f"ptcpt-join-{session}", room=room, session_id=session, user_id=user or session,
        user_name=name or session, joined_at=at(when), owner=owner,
    )  # fmt: skip


def left(
    session: str, room: str, when: float, minutes: float, *, name: str = "", owner: bool = False, user: str = ""
) -> WebhookEvent:
    return event(
        "participant.left", f"ptcpt-left-{session}", room=room, session_id=session, user_id=user or session,
        user_name=name or session, joined_at=at(when), owner=owner, duration=minutes * 60,
    )  # fmt: skip


def recording(name: str, room: str, when: float) -> WebhookEvent:
    return event(
        "recording.ready-to-download", f"rec-rtd-{name}", type="cloud", recording_id=name, room_name=room,
        start_ts=at(when), status="finished", duration=61,
    )  # fmt: skip


def transcript(name: str, meeting: str) -> WebhookEvent:
    return event("transcript.ready-to-download", f"tr-rtd-{name}", id=name, mtg_session_id=meeting, duration=60)


def rest(
    meeting: str, room: str, begin: float, minutes: float, people: Sequence[tuple[str, float, float]]
) -> WebhookEvent:
    """As a backfill has it."""
    there = [
        {
            "participant_id": who,
            "user_id": who,
            "user_name": "by rest",
            "join_time": int(at(when)),
            "duration": int(m * 60),
        }
        for who, when, m in people
    ]
    return event(
        "api.meeting", f"api-{meeting}", id=meeting, room=room, start_time=int(at(begin)), duration=int(minutes * 60),
        ongoing=False, participants=there,
    )  # fmt: skip


def work(pool: Pool) -> MeetingsWorker:
    return MeetingsWorker(Inbox(pool), MeetingListing(pool), new_id=lambda: str(uuid4()))


async def told(pool: Pool, events: Sequence[WebhookEvent]) -> None:
    """Stores each by itself and lets it be applied before the next one comes; then whoever waits."""
    inbox, worker = Inbox(pool), work(pool)
    for one in events:
        await inbox.store([one])
        while await worker.step_once():
            pass


MEETINGS = """
select room_name, daily_meeting_id, status, started_at, ended_at, duration_seconds, user_id::text, recording_url,
  transcript_url, metadata, scheduled_at from meetings order by room_name, started_at, daily_meeting_id
"""
PEOPLE = """
select m.daily_meeting_id, p.daily_participant_id, p.name, p.role, p.joined_at, p.left_at, p.duration_seconds,
  p.metadata
from participants p join meetings m on m.id = p.meeting_id order by 1, 2
"""
UNDONE = "select event_id, waits_for, last_error from webhook_inbox where processed_at is null order by 1"


async def outcome(pool: Pool) -> list[tuple[Any, ...]]:
    """Everything that an order must not change: rows without their ids and dates of writing."""
    return [tuple(row.values()) for query in (MEETINGS, PEOPLE, UNDONE) for row in await pool.fetch(query)]


async def wipe(pool: Pool) -> None:
    await pool.execute("delete from participants; delete from meetings; delete from webhook_inbox")
