"""Takes events out of the inbox, one at a time, and applies them. Any number of workers may run it at once.

One that cannot be applied is put back for later and never holds up the others.
"""

import asyncio
import traceback
from collections.abc import Callable
from typing import Final

import structlog

from gateway.kit.errors import DependencyDown
from gateway.meetings.apply import apply
from gateway.meetings.fields import UnreadableEvent
from gateway.meetings.inbox import Inbox
from gateway.meetings.listing import MeetingListing
from gateway.stores.webhook_inbox import NotApplied

CLAIM_S: Final = 60.0
"""Seconds between two looks for owners of meetings that have none."""
_log: Final = structlog.get_logger("gateway.meetings")


class MeetingsWorker:
    """One per worker."""

    def __init__(
        self, inbox: Inbox, listing: MeetingListing, *, new_id: Callable[[], str], is_used: bool = True
    ) -> None:
        """`new_id` gives ids for new meetings (UUIDs). `is_used`: whether Daily.co is configured here; where it is not,
        an outage of PostgreSQL is somebody else's to report until there has been an event.
        """
        self._inbox: Final = inbox
        self._listing: Final = listing
        self._new_id: Final = new_id
        self._is_used = is_used
        self._claim_at_s = 0.0

    async def apply_due(self) -> None:
        """Applies all due events. Raises DependencyDown where this worker has to report the outage."""
        try:
            while await self.step_once():
                self._is_used = True
            if (now_s := asyncio.get_running_loop().time()) >= self._claim_at_s:
                self._claim_at_s = now_s + CLAIM_S
                await self._listing.claim()
        except DependencyDown:
            if self._is_used:
                raise

    async def step_once(self) -> bool:
        """Applies one event; False when none is due. Raises DependencyDown."""
        event_id = ""
        try:
            async with self._inbox.next_event() as event:
                if event is None:
                    return False
                event_id = event.event_id
                await apply(event, self._new_id)
        except DependencyDown:
            raise
        except UnreadableEvent as error:
            await self._mark_failed(event_id, str(error), for_good=True)
        except NotApplied as error:
            await self._mark_failed(event_id, str(error), for_good=False)
        except Exception as error:  # noqa: BLE001  # a bug must not hold up the events behind this one
            # Where, never what: a message may quote somebody's name.
            where = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-3:]]
            _log.error("an event could not be applied", id=event_id, error=type(error).__name__, where=where)
            await self._inbox.mark_failed(event_id, type(error).__name__)
        return True

    async def _mark_failed(self, event_id: str, reason: str, *, for_good: bool) -> None:
        _log.warning("an event could not be applied", id=event_id, reason=reason, for_good=for_good)
        await self._inbox.mark_failed(event_id, reason, for_good=for_good)
