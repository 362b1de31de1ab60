"""Which meeting a call belongs to: checked against the caller's user before the call costs anything.

`X-Meeting-Id` takes our id of a meeting, Daily's, or the name of a room in which a meeting is in progress. What is not
the caller's is refused as if it did not exist. A store that does not answer is 503, never a guess.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from gateway.http.errors import cannot_tell
from gateway.kit.errors import ApiError, DependencyDown

REMEMBERED_MAX: Final = 50_000
ID_TTL_S: Final = 300.0
"""Seconds for which an id is not looked up again: it never names another meeting."""
ROOM_TTL_S: Final = 5.0
"""The same for a room, which has another meeting soon after one has ended."""
UNKNOWN_TTL_S: Final = 1.0
"""The same for what is not a meeting; short, because the meeting may just be beginning."""
STALE_S: Final = 300.0
"""Seconds for which a room's meeting holds while PostgreSQL is away. An id holds as long as it is remembered."""
NAME_CHARS_MAX: Final = 200


class Meeting(Protocol):
    """What the ledger knows of a meeting."""

    @property
    def id(self) -> str: ...
    @property
    def user_id(self) -> str | None: ...
    @property
    def by_room(self) -> bool: ...


class MeetingTable(Protocol):
    """What Postgres knows."""

    async def meeting(self, name: str) -> Meeting | None: ...


class _Known(NamedTuple):
    meeting: Meeting | None
    asked_s: float
    until_s: float


class MeetingAttribution:
    """Attribution to meetings in one process."""

    def __init__(self, table: MeetingTable, *, monotonic: Callable[[], float]) -> None:
        self._table: Final = table
        self._monotonic: Final = monotonic
        self._known: Final[OrderedDict[str, _Known]] = OrderedDict()
        self._asking: Final[dict[str, asyncio.Task[_Known]]] = {}

    async def of(self, named: list[str], user_id: str) -> str:
        """Our id of the meeting that the request's X-Meeting-Id headers name (at least one).

        Raises ApiError: 400 when it is not a meeting of this user, 503 when that is unknown.
        """
        if len(named) > 1:
            raise ApiError(400, "invalid_meeting", "The X-Meeting-Id header is given more than once.")
        name = named[0]
        if not name or len(name) > NAME_CHARS_MAX or not name.isascii() or not name.isprintable():
            raise _no_meeting()
        known, now = self._known.get(name), self._monotonic()
        if known is None or now >= known.until_s:
            known = await self._ask(name, known)
        if known.meeting is None or known.meeting.user_id != user_id:
            raise _no_meeting()
        return known.meeting.id

    async def _ask(self, name: str, known: _Known | None) -> _Known:
        """One query for any number of calls; known meetings stay valid while PostgreSQL is away."""
        task = self._asking.get(name)
        if task is None:
            task = self._asking[name] = asyncio.get_running_loop().create_task(self._look_up(name))
            task.add_done_callback(lambda done: self._finish_lookup(name, done))
        try:
            return await asyncio.shield(task)
        except DependencyDown as error:
            if known is None or known.meeting is None:
                raise cannot_tell("whose meeting this is") from error
            if known.meeting.by_room and self._monotonic() >= known.asked_s + STALE_S:
                raise cannot_tell("whose meeting this is") from error
            return known

    def _finish_lookup(self, name: str, task: "asyncio.Task[_Known]") -> None:
        del self._asking[name]
        if not task.cancelled():
            task.exception()  # told to everybody who waits, if anybody still does

    async def _look_up(self, name: str) -> _Known:
        asked_s = self._monotonic()
        meeting = await self._table.meeting(name)
        ttl_s = UNKNOWN_TTL_S if meeting is None else ROOM_TTL_S if meeting.by_room else ID_TTL_S
        if meeting is not None and meeting.user_id is None:
            ttl_s = UNKNOWN_TTL_S  # somebody may be made its owner
        known = self._known[name] = _Known(meeting, asked_s, asked_s + ttl_s)
        self._known.move_to_end(name)
        while len(self._known) > REMEMBERED_MAX:
            self._known.popitem(last=False)
        return known


def _no_meeting() -> ApiError:
    message = (
        "X-Meeting-Id must be a meeting of this API key's user: its id, Daily.co's id of it, "
        "or the name of a room in which a meeting is in progress."
    )
    return ApiError(400, "invalid_meeting", message, param="X-Meeting-Id")
