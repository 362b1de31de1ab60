"""How an event gets into the outbox: under the first free identifier of its window, filed under a time."""

from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from gateway.billing import freezing_sql as sql
from gateway.billing.filing import Filing
from gateway.billing.windows import identifier


class NewEvent(NamedTuple):
    """One event to be made."""

    customer_id: UUID | None
    user_id: UUID | None
    customer: str
    meter: str
    window_start: datetime
    window_seconds: int
    """How much of the window it is for, from its start: less than all where a period of Stripe's ends in it."""
    value: int
    """Whole micro-USD."""
    nano: int
    """Nano-USD of the window that it covers."""
    carry_nano: int
    account: str | None
    reason: str
    replaces: int | None = None


async def insert_event(
    connection: Any, event: NewEvent, first_seq: int, filing: Filing, now: datetime
) -> tuple[int, str]:
    """Inserts an event under the first free seq from `first_seq` on; returns that seq, and the identifier.

    A seq is taken where the customer's identifier of that window is Stripe's already: users that share a customer, or
    one that paid for another user before. An event under it would pass for delivered without being counted.
    """
    is_sent, seq = filing.why_not is None, first_seq
    amounts = (event.value, event.nano, event.carry_nano)
    while True:
        made = identifier(event.meter, event.customer, event.window_start, seq)
        row = await connection.fetchval(
            sql.INSERT_EVENT,
            *event[:6],
            seq,
            *amounts,
            filing.at,
            made,
            now if is_sent else None,
            event.account,
            "pending" if is_sent else "unreportable",
            event.reason,
            event.window_start if filing.is_late else None,
            filing.why_not,
            event.replaces,
            filing.before,
        )
        if row is not None:
            return seq, made
        seq += 1
