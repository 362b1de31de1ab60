"""The meeting that a call names, as PostgreSQL knows it."""

from typing import Final, NamedTuple

from gateway.kit.ids import is_uuid
from gateway.stores.postgres import Table
from pricing.readers.text import storable

# The meeting that $1 names: by our id ($2, the same where it is a UUID), by Daily's, or by its room while it lasts.
_MEETING: Final = """
select id::text, user_id::text, coalesce(id <> $2::uuid, true) and daily_meeting_id is distinct from $1 as by_room
from public.meetings
where id = $2 or daily_meeting_id = $1 or (room_name = $1 and ended_at is null and status = 'in_progress')
order by by_room, id is distinct from $2 limit 1
"""


class CallMeeting(NamedTuple):
    """A meeting, as a call may name it."""

    id: str
    user_id: str | None
    """None while nobody is its owner."""
    by_room: bool
    """Whether it was found by its room, which has another one soon."""


class CallMeetings(Table):
    """Raises DependencyDown("postgres"), after two seconds at the latest."""

    async def meeting(self, name: str) -> CallMeeting | None:
        """The meeting with this id, this id at Daily.co, or in progress in the room of this name."""
        rows = await self._look_up(_MEETING, storable(name), name if is_uuid(name) else None)
        return CallMeeting(*rows[0].values()) if rows else None
