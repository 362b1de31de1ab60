"""Who was in which meetings: what is known of one connection, and the sessions of its room that it was in. Pure.

A connection is not part of one meeting: a session ends when somebody has been alone for ten minutes, and the next one
begins with them in it (Daily.co's docs). Webhooks tell about the whole connection and name no meeting; REST
names the meeting and tells about that one. Facts are merged the same in any order: the better source wins, and only
among equals does the value itself decide.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import zip_longest
from typing import Any, NamedTuple

from gateway.meetings.daily_events import REST, WEBHOOK, PersonSeen
from gateway.meetings.timeline import SLACK, Session, SourcedInstant, better_end, earlier, place, plain_seen, seen_from


class Pin(NamedTuple):
    """When somebody joined and left one meeting, according to REST."""

    joined: SourcedInstant
    left: SourcedInstant | None


class SourcedText(NamedTuple):
    """A text and how good its source is; the greater one wins."""

    rank: int
    text: str


@dataclass(frozen=True, slots=True)
class Person:
    """One connection of somebody to a room."""

    session_id: str
    joined: SourcedInstant | None = None
    """Of the whole connection, by webhooks."""
    left: SourcedInstant | None = None
    """The same."""
    name: SourcedText | None = field(default=None, repr=False)
    user_id: SourcedText | None = field(default=None, repr=False)
    owner: bool = False
    pins: Mapping[str, Pin] = field(default_factory=dict)
    """By the meeting's id at Daily.co."""
    events: tuple[str, ...] = ()
    """Ids of the inbox, sorted: what is told here was told by them."""

    def merge(self, other: "Person") -> "Person":
        """Both of them together, whichever was told first."""
        pins = dict(self.pins)
        for daily_id, pin in other.pins.items():
            mine = pins.get(daily_id)
            pins[daily_id] = pin if mine is None else _merge(mine, pin)
        return replace(
            self,
            joined=earlier(self.joined, other.joined),
            left=better_end(self.left, other.left),
            name=max(filter(None, (self.name, other.name)), default=None),
            user_id=max(filter(None, (self.user_id, other.user_id)), default=None),
            owner=self.owner or other.owner,
            pins=pins,
            events=tuple(sorted({*self.events, *other.events})),
        )

    def begins(self) -> datetime:
        """The first instant that is known of it."""
        instants = [pin.joined.at for pin in self.pins.values()]
        return min([*instants, self.joined.at] if self.joined else instants)

    def clamp_to_meeting(self, session: Session, ends: datetime | None) -> tuple[datetime, datetime | None]:
        """When they came into a meeting that ends then, and when they left it: never outside of it. Who was not seen
        leaving leaves with the meeting."""
        pin = self.pins.get(session.daily_id)
        came, went = self.joined, self.left
        if pin is not None:
            came, went = came or pin.joined, went or pin.left
        assert came is not None
        joined = max(came.at, session.start.at) if ends is None else max(min(came.at, ends), session.start.at)
        left = ends if went is None else went.at if ends is None else min(went.at, ends)
        return joined, None if left is None else max(left, joined)


def person_of(fact: PersonSeen, event_id: str) -> Person:
    """What one event alone says."""
    joined = SourcedInstant(fact.joined_at, fact.rank)
    left = None if fact.left_at is None else SourcedInstant(fact.left_at, fact.rank)
    rank = 2 * fact.rank + (fact.left_at is not None)  # who leaves may have another name by then
    person = Person(
        fact.session_id,
        name=SourcedText(rank, fact.name) if fact.name else None,
        user_id=SourcedText(rank, fact.user_id) if fact.user_id else None,
        owner=fact.owner,
        events=(event_id,),
    )
    if fact.daily_id is not None:
        return replace(person, pins={fact.daily_id: Pin(joined, left)})
    return replace(person, joined=joined, left=left)


def sessions_of(person: Person, sessions: Sequence[Session]) -> list[Session]:
    """The meetings that somebody was in, of their room's, which are in order of `key`; none while none fits.

    Where REST names them, and where the connection overlaps them for certain; else the likeliest one.
    """
    named = {session.daily_id for session in sessions if session.daily_id in person.pins}
    if person.joined is None:
        return [session for session in sessions if session.daily_id in named]
    begun = [session for session in sessions if session.start.at <= person.joined.at]
    near = [*begun[-1:], *sessions[len(begun) :]]
    if person.left is None:
        sure = _find_meetings(person, person.joined, near)
    else:
        sure = _find_overlap(person.joined, person.left, near)
    found = named | {session.daily_id for session in sure}
    if not found and (guess := place(near, person.joined.at)) is not None:
        # Who had gone before it began was a visit of its own.
        found = {guess.daily_id} if person.left is None or person.left.at >= guess.start.at else set()
    return [session for session in sessions if session.daily_id in found]


def _find_overlap(joined: SourcedInstant, left: SourcedInstant, sessions: Sequence[Session]) -> list[Session]:
    """What a whole connection overlaps by more than the instants may be off."""
    found = []
    for session, following in zip_longest(sessions, sessions[1:]):
        assert session is not None
        ends = session.ends(None if following is None else following.start.at)
        tolerance = timedelta(0) if session.end is None else session.end.tolerance
        begun = left.at - session.start.at > session.start.tolerance
        if begun and (ends is None or ends - joined.at > tolerance):
            found.append(session)
    return found


def _find_meetings(person: Person, joined: SourcedInstant, sessions: Sequence[Session]) -> list[Session]:
    """The meeting that somebody joined and, as nobody has seen them leave, those that begin where the last one ended: a
    session continues that way with the person who stayed alone."""
    first = place(sessions, joined.at)
    if first is None:
        return []
    found = [first]
    for session in sessions[sessions.index(first) + 1 :]:
        last, pin = found[-1], person.pins.get(found[-1].daily_id)
        if last.end is None or session.start.at - last.end.at > SLACK:
            break
        if pin is not None and pin.left is not None and last.end.at - pin.left.at > 2 * pin.left.tolerance:
            break  # REST saw them leave before it ended
        if session.listed and session.daily_id not in person.pins:
            break  # all its people are known, and they are not among them
        found.append(session)
    return found


def host_of(people: Sequence[Person], users: frozenset[str]) -> str | None:
    """The user who is the meeting's host: of the owners by token who are users here, the first to come."""
    hosts = [person for person in people if person.owner and (user_of(person) or "") in users]
    first = min(hosts, key=lambda person: (person.begins(), person.session_id), default=None)
    return None if first is None else user_of(first)


def user_of(person: Person) -> str | None:
    """The id that their token names, in lower case, as ours are."""
    return None if person.user_id is None else person.user_id.text.lower()


# As they are kept in `metadata.daily` of each row. Its `joined`, `left` and `meeting` are read by earlier versions too.


def plain_person(person: Person, daily_id: str) -> dict[str, Any]:
    """All that is known of a connection as JSON values, for its row in a meeting; the name is a column of its own."""
    pin = person.pins.get(daily_id)
    joined = person.joined or min((pin.joined for pin in person.pins.values()), default=None)
    assert joined is not None
    left = person.left or (None if pin is None else pin.left)
    kept = {
        "joined": plain_seen(joined),
        "left": None if left is None else plain_seen(left),
        "name_rank": None if person.name is None else person.name.rank,
        "user_id": None if person.user_id is None else person.user_id.text,
        "user_rank": None if person.user_id is None else person.user_id.rank,
        "owner": person.owner or None,
        "meeting": daily_id,
        "pins": {name: _plain_pin(person.pins[name]) for name in sorted(person.pins)},
        "events": list(person.events),
    }
    return {name: value for name, value in kept.items() if value is not None}


def person_from(session_id: str, name: str | None, kept: dict[str, Any]) -> Person:
    """The person that `plain_person` has written, in this version or an earlier one."""
    joined, left = seen_from(kept["joined"]), _maybe_seen(kept.get("left"))
    if "pins" in kept:
        pins = {daily_id: Pin(seen_from(pin[0]), _maybe_seen(pin[1])) for daily_id, pin in kept["pins"].items()}
    else:  # one meeting for each connection, and REST's instants beside the webhooks'
        pins = {kept["meeting"]: Pin(joined, left)} if "meeting" in kept else {}
    by_webhook = joined.rank >= WEBHOOK
    user_id = kept.get("user_id")
    return Person(
        session_id,
        joined if by_webhook else None,
        left if left is not None and left.rank >= WEBHOOK else None,
        None if name is None else SourcedText(kept.get("name_rank", 0), name),
        None if user_id is None else SourcedText(kept.get("user_rank", 2 * (WEBHOOK if by_webhook else REST)), user_id),
        kept.get("owner", False),
        pins,
        tuple(kept.get("events", ())),
    )


def _plain_pin(pin: Pin) -> list[Any]:
    return [plain_seen(pin.joined), None if pin.left is None else plain_seen(pin.left)]


def _maybe_seen(kept: list[Any] | None) -> SourcedInstant | None:
    return None if kept is None else seen_from(kept)


def _merge(one: Pin, other: Pin) -> Pin:
    return Pin(earlier(one.joined, other.joined) or one.joined, better_end(one.left, other.left))
