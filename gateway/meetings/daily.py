"""`gateway daily`: our webhook at Daily.co, its past meetings, and links to what it has recorded."""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from gateway.cli.console import Console, progress_bar
from gateway.config.settings import Settings, required
from gateway.kit.errors import OptionError
from gateway.kit.ids import is_uuid
from gateway.kit.instants import parse_bound, rfc3339
from gateway.meetings.backfill import Backfill, Walked
from gateway.meetings.backfill_cursors import BackfillCursors
from gateway.meetings.inbox import Inbox, InboxCounts
from gateway.meetings.listing import MeetingListing
from gateway.meetings.opening import open_daily
from gateway.meetings.registration import ACTIVE, Webhook
from gateway.stores.one_connection import database

PATH: Final = "/webhooks/daily"
EVENT_TYPES: Final = (
    "meeting.started",
    "meeting.ended",
    "participant.joined",
    "participant.left",
    "waiting-participant.joined",
    "waiting-participant.left",
    "recording.started",
    "recording.ready-to-download",
    "recording.error",
    "transcript.started",
    "transcript.ready-to-download",
    "transcript.error",
)
"""What we want to be told (Daily.co's docs)."""
RETRY_TYPE: Final = "exponential"
"""Each event five times; the other kind stops telling anything after three failures (Daily.co's docs)."""
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


class Health(NamedTuple):
    """How our webhook is, and what came by it."""

    webhook: Webhook | None
    problems: list[str]
    events: InboxCounts | None
    """None where PostgreSQL was not asked."""


async def register(settings: Settings, console: Console, *, url: str, as_json: bool = False) -> Webhook:
    """Makes our webhook at Daily.co, or fixes the one with this URL; leaves all others alone. Raises OptionError,
    ConfigError, DependencyDown, DependencyRefused."""
    secret = required(settings, "daily_webhook_secret")["daily_webhook_secret"]
    wanted = {
        "url": _valid_url(url),
        "eventTypes": list(EVENT_TYPES),
        "hmac": secret,
        "retryType": RETRY_TYPE,
    }
    async with AsyncExitStack() as stack:
        daily = await open_daily(stack, settings)
        ours = find_ours(await daily.webhooks(), url)
        if ours is None:
            made, did = await daily.create_webhook(wanted), "Registered"
        elif problems := problems_of(ours, secret):
            made, did = await daily.update_webhook(ours.uuid, wanted), f"Fixed ({'; '.join(problems)})"
        else:
            made, did = ours, "Nothing to do for"
    _say(console, _plain(made), f"{did} {made.url}, {made.uuid}, {made.state}.", as_json=as_json)
    return made


async def status(settings: Settings, console: Console, *, url: str | None, as_json: bool = False) -> Health:
    """Prints how our webhook is and what came by it; with `problems` something is wrong. Raises as `register`."""
    secret = None if settings.daily_webhook_secret is None else settings.daily_webhook_secret.get_secret_value()
    async with AsyncExitStack() as stack:
        daily = await open_daily(stack, settings)
        webhooks = await daily.webhooks()
    ours = find_ours(webhooks, url)
    problems = ["there is no webhook of ours: `gateway daily register --url …`"] if ours is None else []
    if ours is not None:
        problems = problems_of(ours, secret)
    events = None
    if settings.database_url is not None:
        async with database(settings, "the inbox is in PostgreSQL") as pool:
            events = await Inbox(pool).counts()
        if events.failed:
            problems.append(f"{events.failed} events could not be applied: `gateway meetings list` says why")
    health = Health(ours, problems, events)
    if as_json:
        plain = {
            "webhook": None if ours is None else _plain(ours),
            "problems": problems,
            "events": None if events is None else events._asdict() | {"oldest": rfc3339(events.oldest)},
        }
        console.print_json(plain)
        return health
    for line in _lines(health):
        console.say(line)
    return health


async def backfill(
    settings: Settings,
    console: Console,
    *,
    now: datetime,
    since: str,
    until: str | None,
    room: str | None,
    again: bool,
    as_json: bool = False,
) -> Walked:
    """Walks over Daily.co's meetings of a range; says how far it is on standard error. Raises as `register`."""
    begins = parse_bound(since, "--from", now)
    ends = None if until is None else parse_bound(until, "--to", now)
    if begins >= (ends or now):
        raise OptionError("--from must be before --to")
    async with database(settings, "meetings are in PostgreSQL") as pool, AsyncExitStack() as stack:
        walk = Backfill(await open_daily(stack, settings), Inbox(pool), BackfillCursors(pool))
        with progress_bar("meetings") as progress:
            walked = await walk.run(begins, ends, now=now, room=room, again=again, progress=progress)
    span = f"from {rfc3339(begins)} until {rfc3339(walked.until)}"
    said = f"{walked.meetings:,} meetings {span}, {walked.new:,} with something new; the workers take it up now."
    if walked.incomplete:
        said += f" People are missing in {walked.incomplete:,} of them: the log says why, and the next walk asks again."
    _say(console, walked._asdict() | {"until": rfc3339(walked.until)}, said, as_json=as_json)
    return walked


async def link(settings: Settings, console: Console, *, meeting: str, transcript: bool, as_json: bool = False) -> str:
    """Prints where a meeting's recording or transcript can be fetched for a while. Raises as `register`."""
    if not is_uuid(meeting):
        raise OptionError("MEETING: our id of it, a UUID; `gateway meetings list --json` has them")
    what = "transcript" if transcript else "recording"
    async with database(settings, "meetings are in PostgreSQL") as pool:
        kept = await MeetingListing(pool).references(meeting)
    if kept is None:
        raise OptionError(f"MEETING: there is no meeting {meeting}")
    reference = kept.transcript if transcript else kept.recording
    if reference is None:
        raise OptionError(f"MEETING: {meeting} has no {what}")
    if not reference.startswith("daily-"):
        _say(console, {"url": reference, "expires": None}, reference, as_json=as_json)
        return reference
    async with AsyncExitStack() as stack:
        found = await (await open_daily(stack, settings)).link(reference)
    expires = None if found.expires is None else rfc3339(datetime.fromtimestamp(found.expires, UTC))
    _say(console, {"url": found.url, "expires": expires}, found.url, as_json=as_json)
    return found.url


def find_ours(webhooks: Sequence[Webhook], url: str | None) -> Webhook | None:
    """The webhook of this URL; of any that ends as ours does where `url` is None."""
    return next((one for one in webhooks if (one.url == url if url else _path(one.url) == PATH)), None)


def _path(url: str) -> str | None:
    """None of what is no URL: the list has other products' entries in it, however they are."""
    try:
        return urlsplit(url).path
    except ValueError:
        return None


def problems_of(webhook: Webhook, secret: str | None) -> list[str]:
    """What is wrong with our webhook; `secret` is what we expect it to sign with."""
    problems = []
    if webhook.state != ACTIVE:
        problems.append(f"its state is {webhook.state or 'not told'}, not {ACTIVE}: Daily.co may tell us nothing")
    if webhook.retry_type != RETRY_TYPE:
        problems.append(f"it retries by {webhook.retry_type or 'circuit-breaker'}, which stops after three failures")
    if secret is None:
        problems.append("DAILY_WEBHOOK_SECRET is not set: we refuse what it sends")
    elif webhook.hmac is not None and webhook.hmac != secret:
        problems.append("it signs with another secret than DAILY_WEBHOOK_SECRET")
    if missing := sorted(set(EVENT_TYPES) - set(webhook.event_types)):
        problems.append(f"it does not tell of {', '.join(missing)}")
    return problems


def _valid_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        host = None
    if host is None or parts.path != PATH or parts.query or parts.fragment:
        raise OptionError(f"--url: where Daily.co reaches this gateway, like https://gateway.example.com{PATH}")
    if parts.scheme != "https" and not (parts.scheme == "http" and host in _LOOPBACK):
        raise OptionError("--url: it must begin with https://")
    return url


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


def _say(console: Console, plain: Mapping[str, Any], said: str, *, as_json: bool) -> None:
    if as_json:
        console.print_json(plain, indent=None)
    else:
        console.say(said)
