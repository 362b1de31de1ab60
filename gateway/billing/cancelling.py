"""What a person takes back: a delivered event that Stripe cancels within a day, and credit that is due to a customer.

A cancelled event gives its amount back to its window, which is frozen anew: so a correction reaches the invoice of the
same period as one whole amount. Credit that is due is settled with a credit note that somebody has made at Stripe.
"""

from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from gateway.billing import cancelling_sql as sql
from gateway.billing.decisions import Decisions, HeldEvent
from gateway.billing.filing import Filing
from gateway.billing.held import rules_of
from gateway.billing.new_event import NewEvent, insert_event
from gateway.billing.opening import open_billing
from gateway.billing.refiling import lock_payer
from gateway.billing.windows import NANO_PER_UNIT
from gateway.config.settings import Settings
from gateway.kit.errors import ConfigError, OptionError
from gateway.stores.one_connection import database
from gateway.stores.postgres import Pool
from gateway.trail.record import intending, recording
from gateway.trail.store import Deed

CANCEL_MAX: Final = timedelta(hours=24)
"""Stripe cancels no event that it has had for longer (Stripe docs, meter event adjustments)."""
MARGIN: Final = timedelta(minutes=10)
_WHY: Final = "the outbox is in PostgreSQL"
_HOUR_S: Final = 3600


class SettledCredit(NamedTuple):
    """Credit that was due to a customer, by meter."""

    meter: str
    micro_usd: int
    rest_nano: int
    """Less than a micro-USD; it stays due."""


async def cancel_event(
    settings: Settings, identifier: str, why: str, *, now: datetime, is_sure: bool, by: str | None = None
) -> HeldEvent:
    """Cancels a delivered event at Stripe and gives its amount back to its window; without `is_sure` it only looks.

    Raises OptionError where it cannot be cancelled, ConfigError without what is needed, DependencyDown.
    """
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(database(settings, _WHY))
        event = await _cancellable(pool, settings, identifier, now)
        if not is_sure:
            return event
        if settings.stripe_secret_key is None:
            raise ConfigError("STRIPE_SECRET_KEY is not set: Stripe cannot be asked to cancel anything")
        billing = await open_billing(stack, settings, settings.stripe_secret_key.get_secret_value())
        deed = Deed("cancel", "meter_event", identifier, {"state": event.state}, {"why": why})
        async with intending(settings, deed, by=by) as intent:
            await billing.cancel(event.meter, identifier)
            async with pool.acquire() as connection, connection.transaction():
                await take_back(connection, event, intent.actor.name, why)
        return event


async def find_events(pool: Pool, settings: Settings, row_id: str, now: datetime) -> list[HeldEvent]:
    """All delivered events of a ledger row's window, none of which is too old to be cancelled, or on a final invoice.

    Raises OptionError where there is none, or one that Stripe would not cancel; DependencyDown.
    """
    found = await pool.fetchrow(sql.OF_ROW, row_id)
    if found is None or not found["identifiers"]:
        raise OptionError(f"--cancel: nothing of the window of {row_id} is at Stripe; leave it out")
    if found["is_sealed"]:
        raise OptionError(f"--cancel: the month of {row_id} is sealed; leave it out")
    return [await _cancellable(pool, settings, identifier, now) for identifier in found["identifiers"]]


async def _cancellable(pool: Pool, settings: Settings, identifier: str, now: datetime) -> HeldEvent:
    """Raises OptionError."""
    found = await Decisions(pool, rules_of(settings)).held(("sent", "duplicate"), identifier=identifier)
    if not found:
        raise OptionError(f"identifier: no event {identifier!r} was delivered")
    (event,) = found
    if event.delivered_at is None or now - event.delivered_at > CANCEL_MAX - MARGIN:
        raise OptionError(f"{identifier}: Stripe cancels no event that it has had for 24 hours; use `gateway adjust`")
    if why_not := await pool.fetchval(sql.INVOICED, event.id, now):
        raise OptionError(f"{identifier}: {why_not}; use `gateway adjust`")
    if await pool.fetchval(sql.WINDOW_OF, event.id) is None:
        raise OptionError(f"{identifier}: its window is from before payers were kept; use `gateway adjust`")
    return event


async def take_back(connection: Any, event: HeldEvent, who: str, why: str) -> None:
    """What Stripe has cancelled is not frozen any more. Raises OptionError where somebody was faster."""
    await lock_payer(connection, event.customer, event.meter)
    if await connection.fetchval(sql.CANCELLED, event.id) is None:
        raise OptionError(f"{event.identifier}: somebody has cancelled it meanwhile")
    await connection.execute(sql.UNFREEZE, event.id, event.value * NANO_PER_UNIT)
    await connection.execute(sql.DECIDED, event.id, who, "cancel", why, None)


async def settle_credit(
    settings: Settings,
    customer: str,
    credit_note: str,
    why: str,
    *,
    now: datetime,
    is_sure: bool,
    by: str | None = None,
) -> list[SettledCredit]:
    """Records that a credit note has given a customer what was due; without `is_sure` it only looks.

    Raises OptionError when nothing is due, DependencyDown.
    """
    async with database(settings, _WHY) as pool, recording(settings, pool, by=by) as record:
        async with record.connections.acquire() as connection:
            due = await connection.fetch(sql.DUE_OF, customer)
            settled = [SettledCredit(row["meter"], *divmod(row["credit_due_nano"], NANO_PER_UNIT)) for row in due]
            if not any(each.micro_usd for each in settled):
                raise OptionError(f"{customer}: no credit is due to this customer")
            for row, each in zip(due if is_sure else (), settled, strict=False):
                event_id = await _settle_due(connection, row, each, customer, credit_note, now)
                await connection.execute(sql.DECIDED, event_id, record.actor.name, "settle", why, credit_note)
        if is_sure:
            after = {"credit_note": credit_note, "why": why, "micro_usd": sum(each.micro_usd for each in settled)}
            await record.write(Deed("settle", "credit_due", customer, None, after))
    return settled


async def _settle_due(
    connection: Any, row: Any, settled: SettledCredit, customer: str, credit_note: str, now: datetime
) -> int:
    """A settled event of the outbox has what the credit note has given; returns its id."""
    hour = now.replace(minute=0, second=0, microsecond=0)
    whose = (row["customer_id"], None, customer, settled.meter, hour, _HOUR_S)
    event = NewEvent(*whose, -settled.micro_usd, 0, row["nano"], None, "correction")
    filing = Filing(now.replace(microsecond=0), None, why_not="settled by a credit note")
    _, made = await insert_event(connection, event, 0, filing, now)
    await connection.execute(sql.LEAVE_DUE, row["customer_id"], settled.meter, settled.rest_nano)
    return int(await connection.fetchval(sql.SETTLED, made, credit_note))
