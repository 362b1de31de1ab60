"""Walks over Daily.co's past meetings and puts what it tells into the inbox, beside what webhooks have told.

What is there already changes nothing, so a walk may be broken off, gone on with, and made again. Must not write a
meeting: that is for whoever applies the inbox, and a webhook's values are better.
"""

import hashlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, Protocol

import msgspec
import structlog

from gateway.meetings.backfill_cursors import BackfillCursor, BackfillCursors
from gateway.meetings.daily_api import Page
from gateway.meetings.daily_events import API_MEETING
from gateway.meetings.inbox import Inbox
from gateway.stores.webhook_inbox import WebhookEvent

RECONCILE: Final = "reconcile"
KEPT: Final = ("id", "room", "start_time", "duration", "ongoing", "whole")
KEPT_OF_PEOPLE: Final = ("user_id", "participant_id", "user_name", "join_time", "duration")
_log: Final = structlog.get_logger("gateway.meetings")


class DailySource(Protocol):
    """What a walk needs of Daily.co."""

    async def page(self, since: int, until: int, *, room: str | None = None, after: str | None = None) -> Page: ...


class Walked(NamedTuple):
    """How a walk ended."""

    meetings: int
    """Told about, in all its parts."""
    new: int
    """Of these, with something that nobody had told yet; of the last part."""
    until: datetime
    incomplete: int
    """Meetings of this run whose people are incomplete."""


Progress = Callable[[int, int | None], None]
"""Told how many meetings have been walked over, and how many there are as far as Daily.co says."""


class Backfill:
    """One per command or worker."""

    def __init__(self, daily: DailySource, inbox: Inbox, walks: BackfillCursors) -> None:
        self._daily: Final = daily
        self._inbox: Final = inbox
        self._walks: Final = walks

    async def run(
        self,
        since: datetime,
        until: datetime | None,
        *,
        now: datetime,
        room: str | None,
        again: bool,
        progress: Progress,
    ) -> Walked:
        """Meetings that began in [since, until), the newest first; until `now` where `until` is None. Resumes where an
        earlier walk over the same range was interrupted, to that one's end, unless `again`.
        Raises DependencyDown, DependencyRefused.
        """
        name = f"{since.isoformat()} {until.isoformat() if until else 'now'} {room or '*'}"
        reached = None if again else await self._walks.find(name)
        if reached is None or reached.finished:
            reached = BackfillCursor(None, 0, finished=False, until=until or now)
        ends, cursor, count, new, incomplete = reached.until, reached.cursor, reached.meetings, 0, 0
        while True:
            page = await self._daily.page(_unix(since), _unix(ends), room=room, after=cursor)
            new += await self._keep(page)
            incomplete += sum(not meeting.get("whole", True) for meeting in page.meetings)
            count, cursor = count + len(page.meetings), page.cursor
            await self._walks.save(name, BackfillCursor(cursor, count, cursor is None, ends), since, room)
            progress(count, page.total)
            if cursor is None:
                return Walked(count, new, ends, incomplete)

    async def reconcile(self, now: datetime, *, hours: float, lease_s: float) -> int | None:
        """The meetings of the last hours; how many had something new. None when it is somebody else's turn.

        Raises DependencyDown.
        """
        if not await self._walks.lease(RECONCILE, lease_s):
            return None
        since, until = _unix(now - timedelta(hours=hours)), _unix(now) + 60
        page = await self._daily.page(since, until)
        new = await self._keep(page)
        while page.cursor is not None:
            page = await self._daily.page(since, until, after=page.cursor)
            new += await self._keep(page)
        await self._walks.save_look(RECONCILE, now - timedelta(hours=hours), now)
        if new:
            _log.info("meetings reconciled", new=new)
        return new

    async def _keep(self, page: Page) -> int:
        if page.problem is not None:  # what is known of these meetings is kept all the same
            _log.warning("people of meetings are missing", reason=page.problem)
        events = [event_of(meeting) for meeting in page.meetings]
        return len(await self._inbox.store(events)) if events else 0


def event_of(meeting: Mapping[str, Any]) -> WebhookEvent:
    """A meeting as REST tells it, as an event of the inbox; what says the same has the same id."""
    payload: dict[str, Any] = {name: meeting.get(name) for name in KEPT}
    people = [{name: person.get(name) for name in KEPT_OF_PEOPLE} for person in meeting.get("participants") or ()]
    if payload["ongoing"]:  # how long it has lasted so far is not news
        for said in (payload, *people):
            said["duration"] = None
    payload["participants"] = sorted(people, key=lambda person: str(person["participant_id"]))
    told = msgspec.json.encode(payload)
    event_id = f"api-{str(meeting.get('id'))[:200]}-{hashlib.sha256(told).hexdigest()[:16]}"
    body = msgspec.json.encode({"type": API_MEETING, "id": event_id, "payload": msgspec.Raw(told)})
    return WebhookEvent(event_id, API_MEETING, None, body)


def _unix(at: datetime) -> int:
    return int(at.astimezone(UTC).timestamp())
