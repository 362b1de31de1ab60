"""The Daily.co stand-in's rooms: when a session begins and ends, by the rules of Daily.co's page "meetings".

A session begins once somebody has been alone for 30 seconds, or with the second person. It ends when everybody has
left, or when one person has been alone for ten minutes after the others; a new one then begins with that person in it.
So one connection may span sessions, and a short visit may be in none. Webhooks tell about the whole connection, and
name no meeting. So say Daily.co's docs.
"""

from dataclasses import dataclass, field
from typing import Final

from gateway.sandbox.daily.service import LiveSession, Participant, Unknown, World, new_id

BEGINS_ALONE_S: Final = 30.0
ENDS_ALONE_S: Final = 600.0


@dataclass
class LiveRoom:
    """Who is there now."""

    name: str
    present: dict[str, Participant] = field(default_factory=dict)
    """Connections by their ids, whole."""
    session: LiveSession | None = None
    alone_since: float | None = None
    """When the others left; None: nobody else has been there in this session, or somebody still is."""


class LiveRooms:
    """All of them. What happens in a room is told in order of time."""

    def __init__(self, world: World) -> None:
        self._world: Final = world
        self._rooms: Final[dict[str, LiveRoom]] = {}

    def enter(
        self, room: str, name: str, user_id: str | None = None, *, owner: bool = False, at: float | None = None
    ) -> str:
        """Somebody comes; the id of their connection."""
        there, when = self._rooms.setdefault(room, LiveRoom(room)), self._world.at(at)
        self._pass(there, when)
        session_id = new_id()
        person = Participant(session_id, name, user_id or session_id, owner, when)
        there.present[session_id] = person
        self._world.tell_joined(room, person)
        if there.session is not None:
            there.session.people.append(self._part(person, when))
            there.alone_since = None
        elif len(there.present) == 2:
            self._begin(there, when)
        return session_id

    def leave(self, session_id: str, at: float | None = None) -> str:
        """They go. Raises Unknown."""
        there = next((room for room in self._rooms.values() if session_id in room.present), None)
        if there is None:
            raise Unknown(f"nobody with the session_id {session_id!r} is in a room")
        when = self._world.at(at)
        self._pass(there, when)
        person = there.present.pop(session_id)
        self._world.tell_left(there.name, person, when)
        if there.session is not None:
            self._close_part(there.session, session_id, when)
            if not there.present:
                self._end(there, when)
            elif len(there.present) == 1:
                there.alone_since = when
        return session_id

    def pass_time(self, at: float | None = None) -> list[str]:
        """What comes about in all rooms until then; ids of all meetings so far, in order of their beginning."""
        for room in self._rooms.values():
            self._pass(room, self._world.at(at))
        return [session.id for session in sorted(self._world.sessions.values(), key=lambda one: one.start)]

    def _pass(self, room: LiveRoom, until: float) -> None:
        if room.session is None and len(room.present) == 1:
            (person,) = room.present.values()
            if person.joined_at + BEGINS_ALONE_S <= until:
                self._begin(room, person.joined_at + BEGINS_ALONE_S)
        if room.session is not None and room.alone_since is not None and room.alone_since + ENDS_ALONE_S <= until:
            border = room.alone_since + ENDS_ALONE_S
            for session_id in room.present:
                self._close_part(room.session, session_id, border)
            self._end(room, border)
            self._begin(room, border)

    def _begin(self, room: LiveRoom, at: float) -> None:
        continued = {person.session_id for session in self._world.sessions.values() for person in session.people}
        room.session = self._world.start(room.name, at)
        for person in room.present.values():
            joined = at if person.session_id in continued else person.joined_at
            room.session.people.append(self._part(person, joined))

    def _end(self, room: LiveRoom, at: float) -> None:
        assert room.session is not None
        self._world.end(room.session.id, at)
        room.session, room.alone_since = None, None

    @staticmethod
    def _part(person: Participant, joined: float) -> Participant:
        """A connection as far as it is in one session."""
        connected = person.joined_at if joined > person.joined_at else None
        return Participant(person.session_id, person.name, person.user_id, person.owner, joined, connected_at=connected)

    @staticmethod
    def _close_part(session: LiveSession, session_id: str, at: float) -> None:
        next(person for person in session.people if person.session_id == session_id).left_at = at
