"""What `gateway meetings` shows."""

from gateway.cli.console import Console, TextTable
from gateway.cli.text import minute
from gateway.config.settings import Settings
from gateway.kit.instants import rfc3339
from gateway.meetings import admin
from gateway.meetings.listing import Listed


async def list_meetings(
    settings: Settings, console: Console, *, unassigned: bool, room: str | None, limit: int, as_json: bool
) -> None:
    """Meetings, the latest first, and how many events wait or have failed."""
    meetings, counts = await admin.list_meetings(settings, unassigned=unassigned, room=room, limit=limit)
    if as_json:
        plain = [
            meeting._asdict() | {"started_at": rfc3339(meeting.started_at), "ended_at": rfc3339(meeting.ended_at)}
            for meeting in meetings
        ]
        events = counts._asdict() | {"oldest": rfc3339(counts.oldest)}
        console.print_json({"meetings": plain, "events": events})
        return
    console.print_table(_table(meetings))
    if counts.lapsed:
        console.say(f"{counts.lapsed:,} events have lapsed in the last day: no meeting was told.")
    if counts.waiting or counts.failed:
        failed = f"{counts.failed:,} have failed ({counts.given_up:,} for good)"
        said = f"{counts.waiting:,} events wait for their meeting, {failed}"
        console.say(f"{said}: docs/meetings.md says what to do.")


async def assign(settings: Settings, console: Console, *, meeting: str, user: str) -> None:
    """Whose a meeting is now."""
    owner = await admin.assign(settings, meeting=meeting, user=user)
    console.say(f"{meeting} belongs to {owner.email} now.")


async def retry(settings: Settings, console: Console) -> None:
    """How many failed events are applied again."""
    count = await admin.retry(settings)
    console.say(f"{count:,} {'event is' if count == 1 else 'events are'} queued; the workers apply them again.")


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
