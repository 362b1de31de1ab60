"""How facts about one room add up to meetings: the same, in whatever order and however often they come.

Pure. Every value remembers how good its source is (`rank`), and the better one stays; of equals the earlier beginning
and the later end. A meeting that nobody has seen ending ends when the room's next one begins. What belongs to a meeting
follows from the instants alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from gateway.meetings.daily_events import WEBHOOK, SessionSeen

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
SLACK: Final = timedelta(seconds=60)
"""Somebody may join this long before their meeting's beginning: it begins with the second person, or once one has been
alone for 30 seconds. An end that only REST has told may be as much too early."""
CLOCKS: Final = timedelta(seconds=2)
"""By which clocks of Daily.co's may differ."""
COARSE: Final = timedelta(seconds=15)
"""How far REST's instants may be off: `start_time` and `join_time` have about that granularity."""


class SourcedInstant(NamedTuple):
    """An instant and how good its source is."""

    at: datetime
    rank: int

    @property
    def tolerance(self) -> timedelta:
        """How far off it may be."""
        return timedelta(0) if self.rank >= WEBHOOK else COARSE


def earlier(one: SourcedInstant | None, other: SourcedInstant | None) -> SourcedInstant | None:
    """The better of two beginnings."""
    if one is None or other is None:
        return one or other
    return max(one, other, key=lambda seen: (seen.rank, _EPOCH - seen.at))


def better_end(one: SourcedInstant | None, other: SourcedInstant | None) -> SourcedInstant | None:
    """The better of two ends."""
    if one is None or other is None:
        return one or other
    return max(one, other, key=lambda seen: (seen.rank, seen.at))


@dataclass(frozen=True, slots=True)
class Session:
    """A meeting at Daily.co."""

    daily_id: str
    start: SourcedInstant
    end: SourcedInstant | None = None
    """As somebody saw it."""
    listed: bool = False
    """All its people have been told since it ended."""

    @property
    def key(self) -> tuple[datetime, str]:
        """What a room's meetings are ordered by."""
        return self.start.at, self.daily_id

    def with_fact(self, fact: SessionSeen) -> "Session":
        """Both of them together."""
        told = None if fact.started_at is None else SourcedInstant(fact.started_at, fact.rank)
        seen_end = None if fact.ended_at is None else SourcedInstant(fact.ended_at, fact.rank)
        return replace(
            self,
            start=earlier(self.start, told) or self.start,
            end=better_end(self.end, seen_end),
            listed=self.listed or fact.listed,
        )

    def ends(self, next_start: datetime | None) -> datetime | None:
        """When it ends, as far as known; None: it is still running."""
        if self.end is not None:
            return max(self.end.at, self.start.at)
        return None if next_start is None else max(next_start, self.start.at)


def session_of(fact: SessionSeen) -> Session | None:
    """What one event alone says; None where it does not say when the meeting began."""
    if fact.started_at is None:
        return None
    return Session(fact.daily_id, SourcedInstant(fact.started_at, fact.rank)).with_fact(fact)


def place(sessions: Sequence[Session], at: datetime) -> Session | None:
    """The meeting that something at the instant `at` belongs to; None while none fits. `sessions` in order of `key`.

    The last one that had begun and had not ended; else the next one, where it begins within SLACK; else the last one,
    where it had ended so shortly before that its end may be told wrong.
    """
    begun = [session for session in sessions if session.start.at <= at]
    coming = [session for session in sessions if session.start.at > at]
    last = begun[-1] if begun else None
    if last is not None and (last.end is None or at <= last.end.at):
        return last
    if coming and coming[0].start.at - at <= SLACK:
        return coming[0]
    if last is not None and last.end is not None:
        slack = CLOCKS if last.end.rank >= WEBHOOK else SLACK
        return last if at - last.end.at <= slack else None
    return None


# As they are kept in `metadata.daily`.


def plain(session: Session) -> dict[str, Any]:
    """A session's sources as JSON values."""
    kept: dict[str, Any] = {"start": plain_seen(session.start)}
    if session.end is not None:
        kept["end"] = plain_seen(session.end)
    if session.listed:
        kept["listed"] = True
    return kept


def session_from(daily_id: str, kept: dict[str, Any]) -> Session:
    """The session that `plain` has written."""
    end = kept.get("end")
    return Session(
        daily_id, seen_from(kept["start"]), None if end is None else seen_from(end), kept.get("listed", False)
    )


def plain_seen(seen: SourcedInstant) -> list[Any]:
    """An instant and its rank as JSON values."""
    return [seen.at.isoformat(), seen.rank]


def seen_from(kept: list[Any]) -> SourcedInstant:
    """What `plain_seen` has written."""
    return SourcedInstant(datetime.fromisoformat(kept[0]), kept[1])
