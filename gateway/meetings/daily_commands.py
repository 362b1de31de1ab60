"""What `gateway daily` shows."""

from datetime import datetime
from typing import Any

from gateway.cli.console import Console, progress_bar
from gateway.config.settings import Settings
from gateway.kit.instants import rfc3339
from gateway.meetings import daily
from gateway.meetings.daily import Health, Registered
from gateway.meetings.registration import Webhook


async def register(settings: Settings, console: Console, *, url: str, as_json: bool) -> None:
    """Our webhook, and what was done about it."""
    done = await daily.register(settings, url=url)
    made = done.webhook
    said = f"{_did(done)} {made.url}, {made.uuid}, {made.state}."
    console.answer(_plain(made), said, as_json=as_json)


async def status(settings: Settings, console: Console, *, url: str | None, as_json: bool) -> Health:
    """How our webhook is, and what came by it."""
    health = await daily.status(settings, url=url)
    if as_json:
        webhook, events = health.webhook, health.events
        plain = {
            "webhook": None if webhook is None else _plain(webhook),
            "problems": health.problems,
            "events": None if events is None else events._asdict() | {"oldest": rfc3339(events.oldest)},
        }
        console.print_json(plain)
    else:
        console.say(*_lines(health))
    return health


async def backfill(
    settings: Settings,
    console: Console,
    *,
    since: datetime,
    until: datetime | None,
    now: datetime,
    room: str | None,
    again: bool,
    as_json: bool,
) -> None:
    """What a walk has found; how far it is, on standard error."""
    with progress_bar("meetings") as progress:
        walked = await daily.backfill(
            settings, since=since, until=until, now=now, room=room, again=again, progress=progress
        )
    span = f"from {rfc3339(since)} until {rfc3339(walked.until)}"
    said = f"{walked.meetings:,} meetings {span}, {walked.new:,} with something new; the workers take it up now."
    if walked.incomplete:
        said += f" People are missing in {walked.incomplete:,} of them: the log says why, and the next walk asks again."
    console.answer(walked._asdict() | {"until": rfc3339(walked.until)}, said, as_json=as_json)


async def link(settings: Settings, console: Console, *, meeting: str, transcript: bool, as_json: bool) -> None:
    """Where a recording or a transcript can be fetched."""
    found = await daily.link(settings, meeting=meeting, transcript=transcript)
    console.answer({"url": found.url, "expires": rfc3339(found.expires)}, found.url, as_json=as_json)


def _did(done: Registered) -> str:
    if done.is_new:
        return "Registered"
    return f"Fixed ({'; '.join(done.fixed)})" if done.fixed else "Nothing to do for"


def _plain(webhook: Webhook) -> dict[str, Any]:
    """Without the secret."""
    return {
        "uuid": webhook.uuid,
        "url": webhook.url,
        "state": webhook.state,
        "retry_type": webhook.retry_type,
        "failed_count": webhook.failed_count,
        "last_moment_pushed": webhook.last_moment_pushed,
        "event_types": list(webhook.event_types),
    }


def _lines(health: Health) -> list[str]:
    webhook, events = health.webhook, health.events
    lines = []
    if webhook is not None:
        lines.append(f"{webhook.url}: {webhook.state}, {webhook.failed_count or 0} failures in a row")
        lines.append(f"last told at {webhook.last_moment_pushed or 'no time yet'}")
    if events is not None:
        lines.append(f"inbox: {events.new} new, {events.waiting} wait for their meeting, {events.failed} failed")
        if events.lapsed:
            lines.append(f"{events.lapsed} lapsed in the last day: visits that never became a meeting")
    return [*lines, *(f"wrong: {problem}" for problem in health.problems)]
