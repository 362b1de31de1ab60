"""Who was in which meetings, kept as rows: one for each meeting that a connection was in. Must not log a name.

A connection is placed by everything that is known of it, told by events whose rows are there and by those that wait.
What fits no meeting has no row, and its events wait.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gateway.meetings.daily_events import PersonSeen, facts_of, read_envelope
from gateway.meetings.event_store import EventTransaction, MeetingRow, PersonRow
from gateway.meetings.people import Person, person_of, sessions_of


class Settled(NamedTuple):
    """What has come of it."""

    changed: list[MeetingRow]
    """Meetings whose people are not what they were."""
    nowhere: list[Person]
    """Connections that fit no meeting."""


async def tell_people(event: EventTransaction, facts: Sequence[PersonSeen]) -> Settled:
    """People of one room that this event tells about."""
    told: dict[str, Person] = {}
    for fact in facts:
        _add(told, person_of(fact, event.event_id))
    others = []
    for event_id, body in await event.waiting_about(list(told)):
        others.append(event_id)
        for other in facts_of(read_envelope(body)):
            if isinstance(other, PersonSeen):
                _add(told, person_of(other, event_id))
    settled = await settle_people(event, facts[0].room, told.values())
    waiting = {event_id for person in settled.nowhere for event_id in person.events}
    await event.done([event_id for event_id in others if event_id not in waiting])
    return settled


async def settle_people(event: EventTransaction, room: str, people: Iterable[Person]) -> Settled:
    """Brings the rows of these connections to where they belong, with what is kept about them already."""
    known = {person.session_id: person for person in people}
    if not known:
        return Settled([], [])
    kept = await event.rows_of(list(known))
    for row in kept:
        _add(known, row.person)
    meetings = await _meetings(event, room, list(known.values()))
    changed, nowhere = dict[str, MeetingRow](), []
    for person in known.values():
        rows = {row.meeting_id: row for row in kept if row.person.session_id == person.session_id}
        wanted = sessions_of(person, [row.session for row in meetings if row.session is not None])
        fits = [row for row in meetings if row.session in wanted]
        if not fits:
            nowhere.append(person)
            fits_not = await _take_out(event, person, list(rows.values()))
        else:
            fits_not = [row for row in rows.values() if row.meeting_id not in {meeting.id for meeting in fits}]
            await event.remove_people(fits_not)
        gone = {row.meeting_id for row in fits_not}
        changed |= {meeting.id: meeting for meeting in meetings if meeting.id in gone}
        for meeting in fits:
            if await _write(event, rows.get(meeting.id), meeting, person):
                changed[meeting.id] = meeting
    return Settled(list(changed.values()), nowhere)


async def _meetings(event: EventTransaction, room: str, people: Sequence[Person]) -> list[MeetingRow]:
    """The room's meetings that they may have been in, in order."""
    lefts = [person.left.at for person in people if person.left is not None]
    until = max(lefts) if len(lefts) == len(people) else None
    found = await event.meetings_spanned(room, min(person.begins() for person in people), until)
    there = {row.session.daily_id for row in found if row.session is not None}
    # By webhooks and by REST they may have been there at different times.
    for daily_id in sorted({daily_id for person in people for daily_id in person.pins} - there):
        if (row := await event.session(daily_id)) is not None:
            found.append(row)
    return sorted(found, key=lambda row: row.key)


async def _take_out(event: EventTransaction, person: Person, rows: Sequence[PersonRow]) -> Sequence[PersonRow]:
    """Removes somebody from all meetings, and queues the events about them again, to wait. Where those were emptied
    meanwhile, there is nothing to apply again, and the rows stay."""
    events = [event_id for event_id in person.events if event_id != event.event_id]
    if not rows or (events and not await event.are_whole(events)):
        return []
    await event.remove_people(rows)
    await event.redo(events)
    return rows


async def _write(event: EventTransaction, row: PersonRow | None, meeting: MeetingRow, person: Person) -> bool:
    """Writes somebody's row in a meeting, if that changes anything; whether it did."""
    assert meeting.session is not None
    joined, left = person.clamp_to_meeting(meeting.session, meeting.ended_at)
    if row is not None and (row.person, row.joined_at, row.left_at) == (person, joined, left):
        return False
    await event.write_person(None if row is None else row.id, meeting, person, joined, left)
    return True


def _add(people: dict[str, Person], person: Person) -> None:
    known = people.get(person.session_id)
    people[person.session_id] = person if known is None else known.merge(person)
