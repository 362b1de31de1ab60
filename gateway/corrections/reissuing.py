"""Corrects a call whose window was sent to Stripe less than a day ago: the delivered event is cancelled there, and the
window is sent anew as one whole amount.

So that the correction belongs to that window, it is booked at the instant at which the call was. Stripe is asked first:
what it has cancelled and nobody wrote down is cancelled again, without effect, by the same command.
"""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from typing import NamedTuple

from gateway.billing.cancelling import find_events, take_back
from gateway.billing.decisions import HeldEvent
from gateway.billing.opening import open_billing
from gateway.billing.refiling import lock_payer
from gateway.config.settings import Settings
from gateway.corrections.booking import WHY, Booked, Planned, book_correction, new_correction_id, plan_correction
from gateway.corrections.change import WantedRow
from gateway.corrections.store import Reason
from gateway.kit.errors import ConfigError, OptionError
from gateway.ledger.correct import lock_corrections
from gateway.stores.one_connection import database
from gateway.stores.postgres import Pool
from gateway.trail.record import intending, recording
from gateway.trail.store import Deed


class _Found(NamedTuple):
    planned: Planned
    events: Sequence[HeldEvent]
    at: datetime
    """When the call was booked, and its correction is."""


async def correct_and_reissue(
    settings: Settings, wanted: WantedRow, reason: Reason, *, now: datetime, is_sure: bool, by: str | None = None
) -> Booked:
    """Corrects one row and cancels the delivered events of its window; without `is_sure` it only looks.

    Raises OptionError where Stripe cannot cancel them any more, ConfigError, DependencyDown.
    """
    if settings.billing.four_eyes:
        raise OptionError("--cancel: an approval (billing.four_eyes) may come too late for it; leave it out")
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(database(settings, WHY))
        found = await _look(settings, pool, wanted, now)
        if not is_sure or not found.planned.changes:
            return Booked(found.planned, None, cancelled=found.events)
        if settings.stripe_secret_key is None:
            raise ConfigError("STRIPE_SECRET_KEY is not set: Stripe cannot be asked to cancel anything")
        billing = await open_billing(stack, settings, settings.stripe_secret_key.get_secret_value())
        named = [event.identifier for event in found.events]
        deed = Deed("cancel", "meter_event", named[0], {"events": named}, {"why": reason.why})
        async with intending(settings, deed, by=by):
            for event in found.events:
                await billing.cancel(event.meter, event.identifier)
            return await _write(settings, pool, wanted, reason, found, now=now, by=by)


async def _look(settings: Settings, pool: Pool, wanted: WantedRow, now: datetime) -> _Found:
    first = await plan_correction(settings, pool, [wanted], now)
    if not first.changes:
        return _Found(first, (), now)
    row = first.changes[0].row
    return _Found(
        await plan_correction(settings, pool, [wanted], row.booked_at),
        await find_events(pool, settings, row.id, now),
        row.booked_at,
    )


async def _write(
    settings: Settings,
    pool: Pool,
    wanted: WantedRow,
    reason: Reason,
    found: _Found,
    *,
    now: datetime,
    by: str | None,
) -> Booked:
    """In one transaction, so that the window is frozen anew with the correction in it."""
    async with recording(settings, pool, by=by) as record, record.connections.acquire() as connection:
        await lock_corrections(record.connections)
        first = found.events[0]
        await lock_payer(connection, first.customer, first.meter)  # before the windows, as whoever freezes them does
        planned = await plan_correction(settings, record.connections, [wanted], found.at)
        who = record.actor.name
        new_id = new_correction_id(now) if planned.changes else None
        if new_id is not None:
            await book_correction(settings, record, new_id, planned, reason, made_by=who, approved_by=None, at=found.at)
        for event in found.events:
            await take_back(connection, event, who, reason.why)
    return Booked(planned, new_id, cancelled=found.events)
