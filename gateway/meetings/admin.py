"""What an operator does with meetings: lists them, says whose they are, has failed events applied again."""

from typing import Final, NamedTuple

from gateway.accounts.store import Accounts, User
from gateway.config.settings import Settings
from gateway.kit.errors import OptionError
from gateway.kit.ids import is_uuid
from gateway.meetings.inbox import Inbox
from gateway.meetings.listing import Listed, MeetingListing
from gateway.stores.one_connection import database
from gateway.stores.webhook_inbox import InboxCounts
from gateway.trail.record import recording
from gateway.trail.store import Deed

LIMIT_MAX: Final = 1000
_WHY: Final = "meetings are in PostgreSQL"


class ListedMeetings(NamedTuple):
    """Some meetings, the latest first, and what waits for one."""

    meetings: list[Listed]
    events: InboxCounts


async def list_meetings(settings: Settings, *, unassigned: bool, room: str | None, limit: int) -> ListedMeetings:
    """At most so many. Raises OptionError, ConfigError, DependencyDown."""
    if not 1 <= limit <= LIMIT_MAX:
        raise OptionError(f"--limit: 1 to {LIMIT_MAX}")
    async with database(settings, _WHY) as pool:
        meetings = await MeetingListing(pool).meetings(unassigned=unassigned, room=room, rows_max=limit)
        return ListedMeetings(meetings, await Inbox(pool).counts())


async def assign(settings: Settings, *, meeting: str, user: str) -> User:
    """Sets the owner of a meeting for good. Raises OptionError, ConfigError, DependencyDown."""
    if not is_uuid(meeting):
        raise OptionError("MEETING: our id of it, a UUID; `gateway meetings list --json` has them")
    async with database(settings, _WHY) as pool, recording(settings, pool) as record:
        owner = await Accounts(record.connections).find(user)
        if owner is None:
            raise OptionError(f"--user: there is no user {user}; `gateway users list --all` has all of them")
        meetings = MeetingListing(record.connections)
        before = await meetings.owner(meeting)
        done = await meetings.assign(meeting, owner.id)
        if done is None:
            raise OptionError(f"MEETING: there is no meeting {meeting}")
        if not done:
            whose = f"usage or a budget of another user belongs to {meeting}"
            raise OptionError(f"MEETING: {whose}; its owner cannot change")
        await record.write(Deed("assign", "meeting", meeting, {"user_id": before}, {"user_id": owner.id}))
    return owner


async def retry(settings: Settings) -> int:
    """Has failed events applied again; returns how many. Raises ConfigError, DependencyDown."""
    async with database(settings, _WHY) as pool, recording(settings, pool) as record:
        count = await Inbox(record.connections).retry_failed()
        await record.write(Deed("retry", "meeting_events", None, None, {"events": count}))
    return count
