"""What an operator does at Daily.co: our webhook, its past meetings, and links to what it has recorded."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from gateway.config.settings import Settings, require_values
from gateway.kit.errors import OptionError
from gateway.kit.ids import is_uuid
from gateway.meetings.backfill import Backfill, Progress, Walked
from gateway.meetings.backfill_cursors import BackfillCursors
from gateway.meetings.inbox import Inbox
from gateway.meetings.listing import MeetingListing
from gateway.meetings.opening import open_daily
from gateway.meetings.registration import ACTIVE, Webhook
from gateway.stores.one_connection import database
from gateway.stores.webhook_inbox import InboxCounts
from gateway.trail.record import intending
from gateway.trail.store import Deed

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


class Registered(NamedTuple):
    """Our webhook, and what was done so that it is right: nothing where it is neither new nor fixed."""

    webhook: Webhook
    is_new: bool
    fixed: list[str]
    """What was wrong with it."""


class MediaLink(NamedTuple):
    """Where something can be fetched."""

    url: str
    expires: datetime | None
    """None: never, or unknown."""


async def register(settings: Settings, *, url: str) -> Registered:
    """Makes our webhook at Daily.co, or fixes the one with this URL; leaves all others alone. Raises OptionError,
    ConfigError, DependencyDown, DependencyRefused."""
    secret = require_values(settings, "daily_webhook_secret")["daily_webhook_secret"]
    wanted = {
        "url": _valid_url(url),
        "eventTypes": list(EVENT_TYPES),
        "hmac": secret,
        "retryType": RETRY_TYPE,
    }
    async with AsyncExitStack() as stack:
        daily = await open_daily(stack, settings)
        ours = find_ours(await daily.webhooks(), url)
        problems = [] if ours is None else problems_of(ours, secret)
        if ours is not None and not problems:
            return Registered(ours, False, problems)
        deed = Deed("register", "webhook", None if ours is None else ours.uuid, {"problems": problems}, {"url": url})
        async with intending(settings, deed) as intent:
            if ours is None:
                made = await daily.create_webhook(wanted)
            else:
                made = await daily.update_webhook(ours.uuid, wanted)
            intent.learn({"url": url, "state": made.state}, subject_id=made.uuid)
        return Registered(made, ours is None, problems)


async def status(settings: Settings, *, url: str | None) -> Health:
    """How our webhook is and what came by it; with `problems` something is wrong. Raises as `register`."""
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
    return Health(ours, problems, events)


async def backfill(
    settings: Settings,
    *,
    since: datetime,
    until: datetime | None,
    now: datetime,
    room: str | None,
    again: bool,
    progress: Progress,
) -> Walked:
    """Walks over Daily.co's meetings of [since, until), or until `now`. Raises as `register`."""
    if since >= (until or now):
        raise OptionError("--from must be before --to")
    async with database(settings, "meetings are in PostgreSQL") as pool, AsyncExitStack() as stack:
        walk = Backfill(await open_daily(stack, settings), Inbox(pool), BackfillCursors(pool))
        deed = Deed("backfill", "meetings", None, None, {"from": since, "to": until, "room": room, "restart": again})
        async with intending(settings, deed) as intent:
            walked = await walk.run(since, until, now=now, room=room, again=again, progress=progress)
            intent.learn({**(deed.after or {}), **walked._asdict()})
        return walked


async def link(settings: Settings, *, meeting: str, transcript: bool) -> MediaLink:
    """Where a meeting's recording or transcript can be fetched for a while. Raises as `register`."""
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
        return MediaLink(reference, None)
    async with AsyncExitStack() as stack:
        found = await (await open_daily(stack, settings)).link(reference)
    return MediaLink(found.url, None if found.expires is None else datetime.fromtimestamp(found.expires, UTC))


def find_ours(webhooks: Sequence[Webhook], url: str | None) -> Webhook | None:
    """The webhook of this URL; of any that ends as ours does where `url` is None."""
    return next((one for one in webhooks if (one.url == url if url else _path(one.url) == PATH)), None)


def _path(url: str) -> str | None:
    """None of what is not a URL: the list has other products' entries in it, however they are."""
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
