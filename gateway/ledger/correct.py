"""Corrections that nobody has to ask for: an estimate whose exact answer comes later becomes exact, once.

A row that has any correction is not changed again here, whoever corrected it: an earlier answer of OpenAI (also one
that an older version wrote under another kind of id), or a person, who has the last word.
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final

import structlog

from gateway.kit.ids import is_uuid
from gateway.ledger.rows import LedgerEntry, NotARow
from gateway.ledger.store import Ledger
from gateway.stores.postgres import Connections, in_transaction
from gateway.stores.postgres_share import OneTransaction
from gateway.usage.adjust import EXACT, adjustment
from gateway.usage.event import UsageEvent, decode_event
from pricing.readers.body import UNREADABLE

_LOCK: Final = "select pg_advisory_xact_lock(7021914450201)"


@asynccontextmanager
async def correcting(pool: Connections) -> AsyncIterator[OneTransaction]:
    """A transaction in which nobody else corrects a row: what it reads of corrections is all of them.

    Corrections are rare, so one lock serves all rows; a lock for each would need more of them than a server has.
    """
    async with in_transaction(pool) as connections:
        await lock_corrections(connections)
        yield connections


async def lock_corrections(connections: OneTransaction) -> None:
    """The same lock, for a transaction that has begun."""
    await connections.fetch(_LOCK)


async def correct_estimates(ledger: Ledger, exact: Mapping[str, UsageEvent], now: datetime) -> list[str]:
    """Adds the difference to each of these calls (by id) whose row is an estimate without a correction. Their ids.

    Raises DependencyDown.
    """
    if not exact or not await ledger.estimates(list(exact)):
        return []
    entries: list[LedgerEntry] = []
    try:
        async with correcting(ledger.pool) as connections:
            inside = ledger.within(connections)
            found = await inside.estimates(list(exact))
            entries = [LedgerEntry.of(adjustment(each, exact[each.id], now)) for each in found]
            await inside.insert_all(entries)
    except NotARow:
        await ledger.insert_batch(entries)  # what can be a row becomes one, the rest goes to quarantine
    corrected = [each.id for each in found]
    if corrected:
        structlog.get_logger("gateway.correct").info("estimates corrected", calls=corrected)
    return corrected


async def correct_settled(ledger: Ledger, raws: Iterable[bytes], now: datetime) -> None:
    """A call that was swept as an estimate, and whose own process has settled it after all: the exact answer becomes a
    row of its own beside the estimate. `raws`: entries whose calls have a row."""
    exact = {event.id: event for raw in raws if (event := exact_event(raw)) is not None}
    await correct_estimates(ledger, exact, now)


def exact_event(raw: bytes) -> UsageEvent | None:
    """What these bytes say, where that is certain: usage that OpenAI has told, or that the call never ran. It may
    correct an estimate."""
    try:
        event = decode_event(raw)
    except UNREADABLE:
        return None  # it is in quarantine
    return event if event.evidence in (*EXACT, "void") and is_uuid(event.id) else None
