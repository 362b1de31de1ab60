"""`gateway meetings`: which there are, whose they are, and events that could not be applied."""

from typing import Final

from gateway.accounts.store import Accounts
from gateway.cli.console import Console, TextTable
from gateway.cli.text import minute
from gateway.config.settings import Settings
from gateway.kit.errors import OptionError
from gateway.kit.ids import is_uuid
from gateway.kit.instants import rfc3339
from gateway.meetings.inbox import Inbox
from gateway.meetings.listing import Listed, MeetingListing
from gateway.stores.one_connection import database

LIMIT_MAX: Final = 1000
_WHY: Final = "meetings are in PostgreSQL"


async def list_meetings(
    settings: Settings, console: Console, *, unassigned: bool, room: str | None, limit: int, as_json: bool = False
) -> list[Listed]:
    """Prints meetings, the latest first, and returns them. Raises OptionError, ConfigError, DependencyDown."""
    if not 1 <= limit <= LIMIT_MAX:
        raise OptionError(f"--limit: 1 to {LIMIT_MAX}")
    async with database(settings, _WHY) as pool:
        meetings = await MeetingListing(pool).meetings(unassigned=unassigned, room=room, rows_max=limit)
        counts = await Inbox(pool).counts()
    if as_json:
        plain = [
            meeting._asdict() | {"started_at": rfc3339(meeting.started_at), "ended_at": rfc3339(meeting.ended_at)}
            for meeting in meetings
        ]
        events = counts._asdict() | {"oldest": rfc3339(counts.oldest)}
        console.print_json({"meetings": plain, "events": events})
        return meetings
    console.print_table(_table(meetings))
    if counts.lapsed:
        console.say(f"{counts.lapsed:,} events have lapsed in the last day: no meeting was told.")
    if counts.waiting or counts.failed:
        failed = f"{counts.failed:,} have failed ({counts.given_up:,} for good)"
        said = f"{counts.waiting:,} events wait for their meeting, {failed}"
        console.say(f"{said}: docs/meetings.md says what to do.")
    return meetings


async def assign(settings: Settings, console: Console, *, meeting: str, user: str) -> None:
    """Makes somebody the owner of a meeting, for good. Raises OptionError, ConfigError, DependencyDown."""
    if not is_uuid(meeting):
        raise OptionError("MEETING: our id of it, a UUID; `gateway meetings list --json` has them")
    async with database(settings, _WHY) as pool:
        owner = await Accounts(pool).find(user)
        if owner is None:
            raise OptionError(f"--user: there is no user {user}; `gateway users list --all` has all of them")
        done = await MeetingListing(pool).assign(meeting, owner.id)
    if done is None:
        raise OptionError(f"MEETING: there is no meeting {meeting}")
    if not done:
        raise OptionError(f"MEETING: usage or a budget of another user belongs to {meeting}; its owner cannot change")
    console.say(f"{meeting} belongs to {owner.email} now.")


async def retry(settings: Settings, console: Console) -> int:
    """Has failed events applied again; returns how many. Raises ConfigError, DependencyDown."""
    async with database(settings, _WHY) as pool:
        count = await Inbox(pool).again()
    console.say(f"{count:,} {'event is' if count == 1 else 'events are'} queued; the workers apply them again.")
    return count


def _table(meetings: list[Listed]) -> TextTable:
    table = TextTable()
    for name in ("meeting", "room", "owner", "started", "ended"):
        # Ids are copied from here: never folded, however narrow the terminal.
        table.add_column(name, no_wrap=name == "meeting")
    for name in ("minutes", "people"):
        table.add_column(name, right=True)
    for meeting in meetings:
        minutes = "–" if meeting.duration_seconds is None else f"{meeting.duration_seconds / 60:,.1f}"
        table.add_row(
            meeting.id,
            meeting.room_name,
            meeting.email or "(nobody)",
            minute(meeting.started_at),
            minute(meeting.ended_at) if meeting.ended_at else meeting.status.replace("_", " "),
            minutes,
            str(meeting.participants),
        )
    return table
