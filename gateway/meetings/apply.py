"""Applies one event to the meetings and people it is about, within its event.

What does not fit yet waits; what fits elsewhere once more is known is taken out again and its event applied anew. So
the rows in the end do not depend on the order. Must not log a name, and must not guess an owner.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from gateway.kit.ids import is_uuid
from gateway.meetings.daily_events import (
    PersonSeen,
    RecordingSeen,
    SessionSeen,
    TranscriptSeen,
    facts_of,
    read_envelope,
)
from gateway.meetings.event_store import EventTransaction, MeetingRow
from gateway.meetings.inbox_transaction import Wait
from gateway.meetings.people import host_of, user_of
from gateway.meetings.people_rows import settle_people, tell_people
from gateway.meetings.timeline import Session, place, plain, session_of

BEFORE: Final = 2
AFTER: Final = 5
"""Meetings of a room that are looked at about an instant; the last of AFTER is only looked at."""
PLANNED_LATE: Final = timedelta(hours=1)
"""A session that began this long before the platform planned a meeting in the room may be that meeting."""
NewId = Callable[[], str]


async def apply(event: EventTransaction, new_id: NewId) -> bool:
    """True when the event is dealt with, False when it waits. Raises UnreadableEvent."""
    if not event.body:  # emptied by retention: everything it said is in the rows
        await event.done([event.event_id])
        return True
    facts, waits = facts_of(read_envelope(event.body)), None
    people = [fact for fact in facts if isinstance(fact, PersonSeen)]
    for fact in facts:
        if not isinstance(fact, PersonSeen):
            waits = await _apply(event, fact, new_id) or waits
    if people:  # of one room, as no event is about two
        waits = await _people(event, people) or waits
    if waits is None:
        await event.done([event.event_id])
    else:
        await event.wait(waits)
    return waits is None


async def _apply(
    event: EventTransaction, fact: SessionSeen | RecordingSeen | TranscriptSeen, new_id: NewId
) -> Wait | None:
    """What the fact waits for; None when it is in the rows."""
    match fact:
        case SessionSeen():
            await event.lock(room_of(fact.room))
            await event.lock(session_name(fact.daily_id))
            return await _session(event, fact, new_id)
        case RecordingSeen():
            await event.lock(room_of(fact.room))
            return await _recording(event, fact)
        case TranscriptSeen():
            await event.lock(session_name(fact.daily_id))
            return await _transcript(event, fact)


def room_of(name: str) -> str:
    """What events about a room lock, and wait for."""
    return f"room {name}"


def session_name(daily_id: str) -> str:
    """The same of a meeting at Daily.co."""
    return f"session {daily_id}"


async def _session(event: EventTransaction, fact: SessionSeen, new_id: NewId) -> Wait | None:
    known = await event.session(fact.daily_id)
    before = None if known is None else known.session
    session = session_of(fact) if before is None else before.with_fact(fact)
    if session is None:
        return Wait(session_name(fact.daily_id), fact.room, until=fact.ended_at)
    first = session.start.at if before is None else min(session.start.at, before.start.at)
    around = await event.meetings_around(fact.room, first, before=BEFORE, after=AFTER)
    cut = len([row for row in around if row.session and row.session.start.at >= first]) == AFTER
    rows = [row for row in around if row.session is not None and row.session.daily_id != session.daily_id]
    if known is not None:
        if "start" not in known.ours:  # the platform knew Daily's id before Daily said anything: it is its meeting
            known.metadata["daily"] = known.ours | {"planned": True}
        known.session = session
        rows.append(known)
    planned = await event.planned_meeting(fact.room)
    if known is None:
        rows.append(await _new(event, session, fact.room, planned, rows, new_id))
    rows.sort(key=lambda row: row.key)
    if planned is not None and planned.session is None:  # it holds the room's open place: what began before is over
        await _settle(event, rows, cut=cut, over_at=planned.created_at)
    else:
        await _settle(event, rows, cut=cut)
    ended = None if session.end is None else session.end.at
    await event.wake([room_of(fact.room), session_name(session.daily_id)], session.start.at, ended)
    return None


async def _new(
    event: EventTransaction,
    session: Session,
    room: str,
    planned: MeetingRow | None,
    rows: list[MeetingRow],
    new_id: NewId,
) -> MeetingRow:
    """A row for a session that is new here: the one that the platform has planned, or one of its own."""
    if planned is not None and _matches_planned(planned, session):
        planned.session = session
        planned.metadata["daily"] = {"planned": True}
        return planned
    made = MeetingRow(new_id(), session, room, None, "", None, None, {})
    await _write(event, made, ends=session.start.at, new=True)  # ended at once: the room's open place may be taken
    return await _trade(event, made, rows)


async def _trade(event: EventTransaction, made: MeetingRow, rows: Sequence[MeetingRow]) -> MeetingRow:
    """What the platform planned is the first session that can have been it, though a later one was told about first."""
    first = made.session
    assert first is not None
    for row in rows:
        later = row.session
        if later is None or later.key < first.key or not row.ours.get("planned") or not _matches_planned(row, first):
            continue
        if not await event.is_named(row.id):
            made.session, row.session = later, first
            ours, theirs = made.ours, row.ours
            made.metadata = made.metadata | {"daily": {name: theirs[name] for name in theirs if name != "planned"}}
            row.metadata = row.metadata | {"daily": ours | {"planned": True}}
            # In three steps, because Daily's ids are unique.
            aside = replace(later, daily_id=f"{made.id} trades")
            way = MeetingRow(made.id, aside, made.room, None, "", None, None, {})
            await _write(event, way, ends=aside.start.at, force=True)
            await event.move_people(row.id, made.id)
            await _write(event, row, ends=first.start.at, force=True)
            await _write(event, made, ends=later.start.at, force=True)
            return made
    return made


async def _settle(
    event: EventTransaction, rows: list[MeetingRow], *, cut: bool, over_at: datetime | None = None
) -> None:
    """Ends, people, recordings and owners of a room's meetings that follow each other. `cut`: more follow the last;
    else it is over at `over_at`, if that is given and nobody knows better."""
    sessions = [row.session for row in rows if row.session is not None]
    judged = rows[:-1] if cut else rows
    ends = {}
    for number, row in enumerate(judged):
        following = sessions[number + 1].start.at if number + 1 < len(sessions) else over_at
        ends[row.id] = sessions[number].ends(following)
    changed = dict[str, MeetingRow]()
    # Those that end first: a room has one open place.
    for row in sorted(judged, key=lambda row: ends[row.id] is None):
        taken_out = await _take_out_recordings(event, row, sessions)
        if await _write(event, row, ends=ends[row.id], force=taken_out):
            changed[row.id] = row
    there = [kept.person for kept in await event.people([row.id for row in judged])]
    settled = await settle_people(event, rows[0].room, there)
    for row in (changed | {row.id: row for row in settled.changed}).values():
        await _set_owner(event, row, row.ended_at)


async def _write(
    event: EventTransaction, row: MeetingRow, *, ends: datetime | None, force: bool = False, new: bool = False
) -> bool:
    """Writes a meeting with this end, if that changes anything; whether it did."""
    session = row.session
    assert session is not None
    others = {name: value for name, value in row.ours.items() if name not in ("start", "end", "listed", "ended_by")}
    ours = others | plain(session)
    if session.end is None and ends is not None:
        ours["ended_by"] = "next_meeting"
    status = "in_progress" if ends is None else "ended"
    if not (force or new) and (row.metadata.get("daily"), row.ended_at, row.status) == (ours, ends, status):
        return False
    row.metadata = row.metadata | {"daily": ours}
    row.ended_at, row.status = ends, status
    await event.write(row, new=new)
    return True


async def _set_owner(event: EventTransaction, row: MeetingRow, ends: datetime | None) -> None:
    """Whose meeting it is: of the room's record, else of its host; who was named once by hand or by usage stays."""
    of_platform = row.ours.get("planned") or "start" not in row.ours
    if row.metadata.get("owner") == "manual" or (of_platform and row.user_id is not None):
        return
    owner = await event.room_owner(row.room, ends)
    if owner is None:
        people = [kept.person for kept in await event.people([row.id])]
        hosts = [user for person in people if person.owner and (user := user_of(person)) and is_uuid(user)]
        owner = host_of(people, await event.users(hosts))
    if owner == row.user_id or (row.user_id is not None and await event.is_named(row.id)):
        return
    row.user_id = owner
    await _write(event, row, ends=ends, force=True)


async def _people(event: EventTransaction, facts: Sequence[PersonSeen]) -> Wait | None:
    await event.lock(room_of(facts[0].room))
    settled = await tell_people(event, facts)
    for row in settled.changed:
        await _set_owner(event, row, row.ended_at)
    if not settled.nowhere:
        return None
    person = settled.nowhere[0]  # the only one: REST's people have their meeting in the same event
    left = None if person.left is None else person.left.at
    return Wait(room_of(facts[0].room), facts[0].room, person.begins(), left, about=person.session_id)


async def _recording(event: EventTransaction, fact: RecordingSeen) -> Wait | None:
    rows = await event.meetings_around(fact.room, fact.started_at, before=BEFORE, after=BEFORE)
    fits = place([row.session for row in rows if row.session is not None], fact.started_at)
    row = next((row for row in rows if row.session == fits), None) if fits else None
    if row is None:
        return Wait(room_of(fact.room), fact.room, fact.started_at)
    told: dict[str, Any] = {
        "id": fact.id,
        "at": fact.started_at.isoformat(),
        "kind": fact.kind,
        "seconds": fact.duration_seconds,
        "event": event.event_id,
    }
    await _keep(event, row, "recordings", told)
    return None


async def _take_out_recordings(event: EventTransaction, row: MeetingRow, sessions: Sequence[Session]) -> bool:
    """Takes recordings out of a meeting that they do not belong to, now that more is known; whether there were any."""
    recordings = row.ours.get("recordings", [])
    astray = [one for one in recordings if place(sessions, datetime.fromisoformat(one["at"])) != row.session]
    if astray:
        kept = [one for one in recordings if one not in astray]
        row.metadata = row.metadata | {"daily": row.ours | {"recordings": kept}}
        await event.redo([one["event"] for one in astray])
    return bool(astray)


async def _transcript(event: EventTransaction, fact: TranscriptSeen) -> Wait | None:
    row = await event.session(fact.daily_id)
    if row is None:
        return Wait(session_name(fact.daily_id))
    await _keep(event, row, "transcripts", {"id": fact.id, "seconds": fact.duration_seconds})
    return None


async def _keep(event: EventTransaction, row: MeetingRow, name: str, told: dict[str, Any]) -> None:
    """Adds to a list in the metadata; what has the same id takes its place."""
    others = [one for one in row.ours.get(name, []) if one["id"] != told["id"]]
    kept = sorted([*others, told], key=lambda one: str(one["id"]))
    row.metadata = row.metadata | {"daily": row.ours | {name: kept}}
    await event.write(row, new=False)


def _matches_planned(planned: MeetingRow, session: Session) -> bool:
    """Whether a session can be what the platform has planned."""
    return planned.created_at is None or session.start.at >= planned.created_at - PLANNED_LATE
