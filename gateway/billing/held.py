"""`gateway billing`: the meter events that wait for a person, and what the person decides (docs/billing.md).

Decides nothing itself: an event is sent again, or counts as delivered, only because somebody said so.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final

from gateway.billing.outbox import Held, Outbox
from gateway.cli.console import Console, TextTable
from gateway.config.settings import Settings
from gateway.kit.errors import ConfigError, OptionError
from gateway.stores.postgres import open_pool

WAITING: Final = ("rejected", "unknown")
"""States that only a person ends."""
SHOWN_MAX: Final = 1000


async def list_held(settings: Settings, console: Console, *, as_json: bool = False) -> list[Held]:
    """Prints the events that wait for a person, newest first, and returns them. Raises ConfigError, DependencyDown."""
    async with _outbox(settings) as outbox:
        events = await outbox.events(WAITING, events_max=SHOWN_MAX)
    if as_json:
        console.print_json([_plain(event) for event in events])
        return events
    if not events:
        console.say("No meter event waits for anybody.")
        return events
    table = TextTable("identifier", "state", "USD", "why")
    for event in events:
        table.add_row(event.identifier, event.state, _usd(event.value), event.last_error or "")
    console.print_table(table)
    return events


async def requeue(settings: Settings, console: Console, *, identifier: str, now: datetime) -> str:
    """Queues an event again under a new identifier, which it prints and returns. For one that Stripe did NOT count.

    Raises OptionError when no such event waits, ConfigError, DependencyDown.
    """
    async with _outbox(settings) as outbox:
        try:
            fresh = await outbox.reissue(identifier, now)
        except KeyError:
            raise _not_waiting(identifier) from None
    console.say(f"Queued again as {fresh}")
    return fresh


async def mark_delivered(settings: Settings, console: Console, *, identifier: str, now: datetime) -> None:
    """Marks an `unknown` event as sent. For one that Stripe's meter summaries DO contain.

    Raises OptionError when no such event is unknown, ConfigError, DependencyDown.
    """
    async with _outbox(settings) as outbox:
        try:
            await outbox.resolve_delivered(identifier, now)
        except KeyError:
            raise _not_waiting(identifier) from None
    console.say(f"{identifier} counts as sent")


@asynccontextmanager
async def _outbox(settings: Settings) -> AsyncIterator[Outbox]:
    if settings.database_url is None:
        raise ConfigError("DATABASE_URL is not set: the outbox is in PostgreSQL")
    pool = await open_pool(settings.database_url.get_secret_value(), connections_max=1)
    try:
        yield Outbox(pool)
    finally:
        await pool.close()


def _not_waiting(identifier: str) -> OptionError:
    return OptionError(
        f"identifier: no event {identifier!r} waits for this; `gateway billing held` lists those that do"
    )


def _plain(event: Held) -> dict[str, Any]:
    instants = {name: value.isoformat() for name, value in event._asdict().items() if isinstance(value, datetime)}
    return event._asdict() | instants | {"user_id": str(event.user_id)}


def _usd(micro: int) -> str:
    """Whole micro-USD as dollars, exact."""
    sign, digits = "-" if micro < 0 else "", f"{abs(micro):07d}"
    return f"{sign}{digits[:-6]}.{digits[-6:]}"
