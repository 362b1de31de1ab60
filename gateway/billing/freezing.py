"""Windows become outbox rows: what each payer owes, rounded, filed into a period, and frozen in one transaction.

Amounts leave `billing_windows` and become `stripe_meter_events` in one transaction, so an amount is in exactly one of
them. The payer of an amount is the window's, whoever pays for the user today. Must not speak to Stripe.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from gateway.billing import freezing_sql as sql
from gateway.billing.filing import Filing, FilingRules, Subscription, edge_within, file_amount
from gateway.billing.new_event import NewEvent, insert_event
from gateway.billing.windows import FreezeCounts, Leftover, freeze


class _Group(NamedTuple):
    """Whose windows are frozen, and by which rules. `connection` is in a transaction."""

    connection: Any
    customer_id: UUID
    customer: str
    meter: str
    account: str | None
    now: datetime
    rules: FilingRules
    subscriptions: Sequence[Subscription] | None


class _Part(NamedTuple):
    """A part of a window that lies in one period."""

    start: datetime
    end: datetime
    nano: int
    is_early: bool = False
    """Whether it ends before its window does."""


async def freeze_payer(
    connection: Any,
    payer: tuple[UUID, str],
    closed_by: datetime,
    now: datetime,
    account: str | None,
    rules: FilingRules,
) -> FreezeCounts:
    """Freezes the closed windows of one customer and meter. Runs inside the caller's transaction."""
    customer_id, meter = payer
    await connection.execute(sql.CARRY_ROW, customer_id, meter)
    locked = await connection.fetchrow(sql.CARRY_LOCK, customer_id, meter)
    if locked is None or locked["customer"] is None:
        return FreezeCounts(0, 0)  # another worker is at it
    subscriptions = await read_subscriptions(connection, locked["customer"], meter)
    group = _Group(connection, customer_id, locked["customer"], meter, account, now, rules, subscriptions)
    left, events = Leftover(locked["nano"], locked["credit_due_nano"]), 0
    windows = await connection.fetch(sql.WINDOWS, customer_id, meter, closed_by)
    for window in windows:
        pending = window["billed_nano"] - window["credit_nano"] - window["frozen_nano"] - window["settled_nano"]
        seq = window["next_seq"]
        parts = await _divide(group, window, pending)
        for part in parts:
            left, made = await _freeze_part(group, window, part, seq, left)
            events, seq = events + len(made), made[-1] + 1 if made else seq
        early = sum(part.nano for part in parts if part.is_early)
        await connection.execute(sql.FREEZE_WINDOW, window["id"], pending, early, seq)
    await connection.execute(sql.FREEZE_CARRY, customer_id, meter, *left)
    return FreezeCounts(len(windows), events)


async def read_subscriptions(connection: Any, customer: str, meter: str) -> list[Subscription] | None:
    """Those of a customer with this meter; None where it has none and Stripe was never asked about all of them."""
    rows = await connection.fetch(sql.SUBSCRIPTIONS, customer, meter)
    if not rows and not await connection.fetchval(sql.SYNCED):
        return None
    return [Subscription(*row.values()) for row in rows]


async def _divide(group: _Group, window: Any, pending: int) -> list[_Part]:
    """What of a window belongs to which period. Only one that a period ends in has more than one part."""
    start = window["window_start"]
    end = start + timedelta(seconds=window["window_seconds"])
    edge = edge_within(start, end, group.subscriptions)
    if edge is None:
        return [_Part(start, end, pending)]
    early = await group.connection.fetchval(sql.BEFORE_EDGE, group.customer_id, start, edge)
    on_credit = min(max(window["credit_nano"], 0), max(early, 0))  # credit pays first
    early -= on_credit + window["early_nano"]
    parts = [_Part(start, edge, early, is_early=True), _Part(edge, end, pending - early)]
    return [part for part in parts if part.nano]


async def _freeze_part(group: _Group, window: Any, part: _Part, seq: int, left: Leftover) -> tuple[Leftover, list[int]]:
    """Makes the events of a part; returns what is left, and the seqs that were taken."""
    filing = file_amount(part.start, part.end, group.now, group.subscriptions, group.rules)
    is_sent = filing.why_not is None
    # Only where something is to be taken back does it matter what the period has.
    is_less = part.nano + left.carry_nano < left.due_nano
    takes_back = await _in_period(group, filing) if is_less and is_sent else 0
    frozen = freeze(part.nano, left, is_sent=is_sent, takes_back=takes_back)
    reason = "late" if filing.is_late else "correction" if part.nano < 0 else "usage"
    made: list[int] = []
    for number, value in enumerate(frozen.values):
        event = NewEvent(
            group.customer_id,
            None,
            group.customer,
            group.meter,
            window["window_start"],
            (part.end - window["window_start"]) // timedelta(seconds=1),
            value,
            0 if number else part.nano,
            frozen.left.carry_nano,
            group.account,
            reason,
        )
        taken, _ = await insert_event(group.connection, event, made[-1] + 1 if made else seq, filing, group.now)
        made.append(taken)
    return frozen.left, made


async def _in_period(group: _Group, filing: Filing) -> int:
    """Micro-USD that the customer's period has or is about to have."""
    if filing.period is None:
        return 0
    found = await group.connection.fetchval(sql.IN_PERIOD, group.customer, group.meter, *filing.period, None)
    return int(found)
