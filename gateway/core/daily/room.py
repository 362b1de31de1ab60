"""How facts about one room add up to meetings and people: the same, in whatever order and however often they come.

Pure. Every value remembers how good its source is (`rank`), and the better one stays; of equals the earlier beginning
and the later end. A meeting that nobody has seen ending ends when the room's next one begins. Who and what belongs to a
meeting follows from the instants alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from gateway.core.daily.events import PersonSeen, SessionSeen

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
SLACK: Final = timedelta(seconds=60)
"""Somebody may join this long before their meeting's beginning, or after its end, by Daily's own clocks."""


class Seen(NamedTuple):
    """An instant and how good its source is."""

    at: datetime
    rank: int


def earlier(one: Seen | None, other: Seen | None) -> Seen | None:
    """The better of two beginnings."""
    if one is None or other is None:
        return one or other
    return max(one, other, key=lambda seen: (seen.rank, _EPOCH - seen.at))


def later(one: Seen | None, other: Seen | None) -> Seen | None:
    """The better of two ends."""
    if one is None or other is None:
        return one or other
    return max(one, other, key=lambda seen: (seen.rank, seen.at))


@dataclass(frozen=True, slots=True)
class Session:
    """A meeting at Daily.co."""

    daily_id: str
    start: Seen
    end: Seen | None = None
    """As somebody saw it."""

    @property
    def key(self) -> tuple[datetime, str]:
        """What a room's meetings are ordered by."""
        return self.start.at, self.daily_id

    def with_fact(self, fact: SessionSeen) -> "Session":
        """Both of them together."""
        start = earlier(self.start, Seen(fact.started_at, fact.rank)) or self.start
        seen_end = None if fact.ended_at is None else Seen(fact.ended_at, fact.rank)
        return replace(self, start=start, end=later(self.end, seen_end))

    def ends(self, next_start: datetime | None) -> datetime | None:
        """When it ends, as far as anybody can tell; None: it goes on."""
        if self.end is not None:
            return max(self.end.at, self.start.at)
        return None if next_start is None else max(next_start, self.start.at)


def session_of(fact: SessionSeen) -> Session:
    """What one event alone says."""
    seen_end = None if fact.ended_at is None else Seen(fact.ended_at, fact.rank)
    return Session(fact.daily_id, Seen(fact.started_at, fact.rank), seen_end)


def place(sessions: Sequence[Session], at: datetime) -> Session | None:
    """The meeting that something at the instant `at` belongs to; None while none fits. `sessions` in order of `key`.

    The last one that had begun and had not ended; else the next one, where it begins within SLACK; else the last one,
    where it had ended within SLACK.
    """
    begun = [session for session in sessions if session.start.at <= at]
    coming = [session for session in sessions if session.start.at > at]
    last = begun[-1] if begun else None
    if last is not None and (last.end is None or at <= last.end.at):
        return last
    if coming and coming[0].start.at - at <= SLACK:
        return coming[0]
    if last is not None and last.end is not None and at - last.end.at <= SLACK:
        return last
    return None


@dataclass(frozen=True, slots=True)
class Person:
    """One connection of somebody to a meeting."""

    session_id: str
    joined: Seen
    left: Seen | None = None
    name: str | None = field(default=None, repr=False)
    name_rank: int = 0
    user_id: str | None = field(default=None, repr=False)
    owner: bool = False
    daily_id: str | None = None
    """The meeting, where an event has said it."""
    events: tuple[str, ...] = ()
    """Ids of the inbox, sorted: what is told here was told by them."""

    def with_fact(self, fact: PersonSeen, event_id: str) -> "Person":
        """Both of them together."""
        joined = earlier(self.joined, Seen(fact.joined_at, fact.rank)) or self.joined
        left = later(self.left, None if fact.left_at is None else Seen(fact.left_at, fact.rank))
        # Who leaves may have another name by then; it is the last word of the better source.
        told = (2 * fact.rank + (fact.left_at is not None), fact.name or "")
        known = (self.name_rank, self.name or "")
        rank, name = max(told, known) if fact.name else known
        return replace(
            self,
            joined=joined,
            left=left,
            name=name or None,
            name_rank=rank,
            user_id=max(filter(None, (self.user_id, fact.user_id)), default=None),
            owner=self.owner or fact.owner,
            daily_id=max(filter(None, (self.daily_id, fact.daily_id)), default=None),
            events=tuple(sorted({*self.events, event_id})),
        )

    def leaves(self, meeting_end: datetime | None) -> datetime | None:
        """When they leave: as somebody saw it, or with the meeting; None: they are there."""
        if self.left is not None:
            return max(self.left.at, self.joined.at)
        return None if meeting_end is None else max(meeting_end, self.joined.at)


def person_of(fact: PersonSeen, event_id: str) -> Person:
    """What one event alone says."""
    return Person(fact.session_id, Seen(fact.joined_at, fact.rank)).with_fact(fact, event_id)


def host_of(people: Sequence[Person], users: frozenset[str]) -> str | None:
    """The user who is the meeting's host: of the owners by token who are users here, the first to come."""
    hosts = [person for person in people if person.owner and (person.user_id or "").lower() in users]
    first = min(hosts, key=lambda person: (person.joined.at, person.session_id), default=None)
    return None if first is None or first.user_id is None else first.user_id.lower()


# As they are kept in `metadata.daily`.


def plain(session: Session) -> dict[str, Any]:
    """A session's sources as JSON values."""
    kept: dict[str, Any] = {"start": _plain(session.start)}
    if session.end is not None:
        kept["end"] = _plain(session.end)
    return kept


def session_from(daily_id: str, kept: dict[str, Any]) -> Session:
    """The session that `plain` has written."""
    end = kept.get("end")
    return Session(daily_id, _seen(kept["start"]), None if end is None else _seen(end))


def plain_person(person: Person) -> dict[str, Any]:
    """A person's sources as JSON values; the name is a column of its own."""
    kept = {
        "joined": _plain(person.joined),
        "left": None if person.left is None else _plain(person.left),
        "name_rank": person.name_rank or None,
        "user_id": person.user_id,
        "owner": person.owner or None,
        "meeting": person.daily_id,
        "events": list(person.events),
    }
    return {name: value for name, value in kept.items() if value is not None}


def person_from(session_id: str, name: str | None, kept: dict[str, Any]) -> Person:
    """The person that `plain_person` has written."""
    left = kept.get("left")
    return Person(
        session_id,
        _seen(kept["joined"]),
        None if left is None else _seen(left),
        name,
        kept.get("name_rank", 0),
        kept.get("user_id"),
        kept.get("owner", False),
        kept.get("meeting"),
        tuple(kept.get("events", ())),
    )


def _plain(seen: Seen) -> list[Any]:
    return [seen.at.isoformat(), seen.rank]


def _seen(kept: list[Any]) -> Seen:
    return Seen(datetime.fromisoformat(kept[0]), kept[1])
