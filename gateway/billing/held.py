"""The meter events that wait for a person, and what the person decides (docs/billing.md).

Decides nothing itself: an event is sent again, or counts as delivered, only because somebody said so.
"""

from datetime import datetime
from typing import Final

from gateway.billing.outbox import HELD_STATES, Held, Outbox
from gateway.config.settings import Settings
from gateway.kit.errors import OptionError
from gateway.stores.one_connection import database
from gateway.trail.record import recording
from gateway.trail.store import Deed

SHOWN_MAX: Final = 1000
_WHY: Final = "the outbox is in PostgreSQL"


async def list_held(settings: Settings) -> list[Held]:
    """The events that wait for a person, newest first. Raises ConfigError, DependencyDown."""
    async with database(settings, _WHY) as pool:
        return await Outbox(pool).events(HELD_STATES, events_max=SHOWN_MAX)


async def requeue(settings: Settings, *, identifier: str, now: datetime) -> str:
    """Queues an event again under a new identifier, which it returns. For one that Stripe did NOT count.

    Raises OptionError when no such event waits, ConfigError, DependencyDown.
    """
    async with database(settings, _WHY) as pool, recording(settings, pool) as record:
        try:
            fresh = await Outbox(record.connections).reissue(identifier, now)
        except KeyError:
            raise _not_waiting(identifier) from None
        await record.write(Deed("again", "meter_event", identifier, None, {"state": "pending", "identifier": fresh}))
    return fresh


async def mark_delivered(settings: Settings, *, identifier: str, now: datetime) -> None:
    """Marks an `unknown` event as sent. For one that Stripe's meter summaries DO contain.

    Raises OptionError when no such event is unknown, ConfigError, DependencyDown.
    """
    async with database(settings, _WHY) as pool, recording(settings, pool) as record:
        try:
            await Outbox(record.connections).resolve_delivered(identifier, now)
        except KeyError:
            raise _not_waiting(identifier) from None
        await record.write(Deed("delivered", "meter_event", identifier, {"state": "unknown"}, {"state": "sent"}))


def _not_waiting(identifier: str) -> OptionError:
    return OptionError(
        f"identifier: no event {identifier!r} waits for this; `gateway billing held` lists those that do"
    )
