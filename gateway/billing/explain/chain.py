"""From a line of an invoice to calls, and what is lost on the way. Pure.

The chain is: rows of the ledger → windows of a payer → meter events → a line at Stripe. Amounts are integers: nano-USD
until the events, whole micro-USD of these, and the smallest unit of the currency on the line.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Final, NamedTuple
from uuid import UUID

from gateway.billing.windows import NANO_PER_UNIT

CENTS_PER_UNIT: Final = Decimal("0.0001")
"""Of the price that `gateway stripe setup` makes."""
DELIVERED: Final = ("sent", "duplicate")
DEAD: Final = ("superseded", "cancelled")
"""States of events whose amount another event has, or none."""


class ExplainedRow(NamedTuple):
    """A row of the ledger."""

    id: UUID
    user_id: UUID
    completed_at: datetime
    booked_at: datetime
    model: str
    endpoint: str
    evidence: str
    total_tokens: int | None
    billed_nano: int
    request_id: str | None
    response_id: str | None
    adjusts: UUID | None
    customer_id: UUID | None
    books_version: int

    @property
    def is_unpriced(self) -> bool:
        """Whether its amount is not known, which is not the same as 0."""
        return self.evidence == "unpriced"


class PayerWindow(NamedTuple):
    """What a payer owed for a span of time. `customer_id` None: a user's, before anybody paid for them."""

    customer_id: UUID | None
    user_id: UUID | None
    meter: str
    start: datetime
    seconds: int
    billed: int
    credit: int
    frozen: int
    settled: int
    is_old: bool
    """Of `stripe_windows`, before there were payers."""

    @property
    def end(self) -> datetime:
        """Exclusive."""
        return self.start + timedelta(seconds=self.seconds)

    @property
    def left(self) -> int:
        """Not made into events yet."""
        return self.billed - self.credit - self.settled - self.frozen


class OutboxEvent(NamedTuple):
    """A meter event."""

    id: int
    identifier: str
    customer_id: UUID | None
    user_id: UUID | None
    customer: str
    meter: str
    window_start: datetime
    at: datetime
    """Under which Stripe files it."""
    value: int
    state: str
    reason: str
    replaces: int | None
    delivered_at: datetime | None
    last_error: str | None
    settled_ref: str | None


class BilledLine(NamedTuple):
    """A line of an invoice that bills usage."""

    invoice: str
    number: str | None
    status: str
    finalized_at: datetime | None
    customer: str
    id: str
    amount: int
    currency: str
    quantity: Decimal | None
    meter: str
    since: datetime
    until: datetime


class ChainStep(NamedTuple):
    """One amount of a chain, nano-USD, as it is added."""

    key: str
    title: str
    nano: int
    is_sum: bool = False


class LineComparison(NamedTuple):
    """A line against what was delivered for it, micro-USD."""

    quantity: Decimal
    events: tuple[OutboxEvent, ...]
    """On the line, as far as anybody can know."""
    causes: tuple[str, ...]
    rest: Decimal
    """What no cause explains."""


class InvoiceChain(NamedTuple):
    """A line, traced."""

    line: BilledLine
    steps: tuple[ChainStep, ...]
    causes: tuple[str, ...]
    """Why the events are not what the line bills; empty when they are."""
    unexplained_nano: int
    events: tuple[OutboxEvent, ...]
    """On the line."""
    windows: tuple[PayerWindow, ...]
    rows: tuple[ExplainedRow, ...]


def build_chain(
    line: BilledLine,
    events: Sequence[OutboxEvent],
    windows: Sequence[PayerWindow],
    rows: Sequence[ExplainedRow],
    credit_due_nano: int,
) -> InvoiceChain:
    """`events`: all of these windows, and all that are filed in the line's period."""
    live = [one for one in events if one.state not in DEAD]
    compared = compare_line(line, live)
    mine = compared.events
    keys = {window_key(one) for one in windows}
    elsewhere = [one for one in live if one not in mine and event_key(one) in keys]
    billed = sum(one.billed for one in windows)
    row_sum = sum(one.billed_nano for one in rows)
    frozen = sum(one.frozen for one in windows)
    outside = sum(one.value for one in elsewhere) * NANO_PER_UNIT
    total = sum(one.value for one in mine) * NANO_PER_UNIT
    carried = total - (frozen - outside)
    steps = (
        ChainStep("rows", f"{len(rows)} calls and corrections", row_sum, is_sum=True),
        ChainStep("windows", "in windows, and in no row that is kept", billed - row_sum),
        ChainStep("credit", "paid by prepaid credit", -sum(one.credit for one in windows)),
        ChainStep("settled", "settled by hand, or written off", -sum(one.settled for one in windows)),
        ChainStep("open", "not made into events yet", -sum(one.left for one in windows)),
        *(ChainStep(f"events_{state}", title, -nano) for state, title, nano in _elsewhere(elsewhere, line)),
        ChainStep("carried", "carried from and to other windows (parts of a micro-USD, and what is due)", carried),
        ChainStep("events", f"{len(mine)} meter events on this line", total, is_sum=True),
    )
    lost = 0 if _is_small(carried, credit_due_nano) else carried
    unexplained = compared.rest * NANO_PER_UNIT + lost + billed - row_sum
    steps += (ChainStep("line", "on the line", int(compared.quantity * NANO_PER_UNIT), is_sum=True),)
    return InvoiceChain(line, steps, compared.causes, int(unexplained), mine, tuple(windows), tuple(rows))


def window_key(window: PayerWindow) -> tuple[UUID | None, UUID | None, str, datetime]:
    """What an event names its window by."""
    return window.customer_id, window.user_id, window.meter, window.start


def event_key(event: OutboxEvent) -> tuple[UUID | None, UUID | None, str, datetime]:
    """The window that an event's amount is from: that of a user keeps the user, whoever came to pay."""
    owner = (None, event.user_id) if event.user_id is not None else (event.customer_id, None)
    return (*owner, event.meter, event.window_start)


def line_amount(quantity: Decimal) -> int:
    """Whole cents of a quantity of micro-USD at 0.0001 cents each, rounded as Stripe rounds a line."""
    return int((quantity * CENTS_PER_UNIT).quantize(Decimal(1), ROUND_HALF_UP))


def _came_too_late(event: OutboxEvent, line: BilledLine) -> bool:
    at, final = event.delivered_at, line.finalized_at
    return at is not None and final is not None and at > final


def _elsewhere(events: Sequence[OutboxEvent], line: BilledLine) -> list[tuple[str, str, int]]:
    sums: dict[tuple[str, str], int] = {}
    for one in events:
        if one.state in DELIVERED:
            key = ("late", "delivered after this invoice was final") if _is_in(one, line) else _other_period(one, line)
        else:
            key = (one.state, f"meter events that are {one.state.replace('_', ' ')}")
        sums[key] = sums.get(key, 0) + one.value * NANO_PER_UNIT
    return [(state, title, nano) for (state, title), nano in sorted(sums.items())]


def _other_period(event: OutboxEvent, line: BilledLine) -> tuple[str, str]:
    return ("later", "filed in a later period") if event.at >= line.until else ("earlier", "filed in an earlier period")


def _is_in(event: OutboxEvent, line: BilledLine) -> bool:
    return line.since <= event.at < line.until


def compare_line(line: BilledLine, filed: Sequence[OutboxEvent]) -> LineComparison:
    """What a line bills, against the events that are filed in its period."""
    delivered = [one for one in filed if one.state in DELIVERED and _is_in(one, line)]
    tardy = [one for one in delivered if _came_too_late(one, line)]
    mine = [one for one in delivered if one not in tardy]
    value, late = sum(one.value for one in mine), sum(one.value for one in tardy)
    quantity = Decimal(value) if line.quantity is None else line.quantity
    causes, rest = [], quantity - value
    if tardy:
        causes.append(f"{len(tardy)} events ({late} micro-USD) were delivered after the invoice was final")
        if rest == late:
            rest = Decimal(0)
            causes[-1] += "; Stripe has counted them all the same"
    if value < 0 and quantity == 0:
        causes.append("Stripe bills a period whose usage is negative as 0")
        rest = Decimal(0)
    if rest:
        more = "more" if rest > 0 else "less"
        causes.append(f"Stripe bills {abs(rest):f} micro-USD {more} than was delivered: `gateway reconcile stripe`")
    # In another currency only Stripe's price says what the usage costs.
    if line.quantity is not None and line.currency == "usd" and line_amount(quantity) != line.amount:
        causes.append(f"{quantity:f} micro-USD are {line_amount(quantity)} cents, and the line has {line.amount}")
    return LineComparison(quantity, tuple(mine), tuple(causes), rest)


def _is_small(carried: int, due: int) -> bool:
    """Whether a difference can be what rounding carries, or what is due to the customer."""
    return abs(carried) < NANO_PER_UNIT or abs(carried - due) < NANO_PER_UNIT
