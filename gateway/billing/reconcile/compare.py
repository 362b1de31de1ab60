"""A customer's month, from the ledger to Stripe's summaries and invoices, and why two of them differ. Pure.

Each step is compared with the one before it. A difference has a cause that is known here, or it is `unexplained`; more
at Stripe than was delivered is `foreign`: events of somebody else under our meter, or one of ours that counts twice.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import combinations
from typing import Final, NamedTuple

from gateway.billing.explain.chain import DELIVERED, BilledLine, OutboxEvent, compare_line
from gateway.billing.filing import Subscription, period_at
from gateway.billing.windows import NANO_PER_UNIT

LAG: Final = timedelta(minutes=15)
"""How far Stripe's summaries may lag behind."""
DRAFT_BY: Final = timedelta(days=1)
"""After a period's end, by when its invoice is a draft and has been read."""
TRIED_MAX: Final = 12
"""Events of which every combination is tried."""
HELD: Final = ("rejected", "unknown", "unreportable")
FAILS: Final = ("unexplained", "foreign")
"""Causes that somebody has to look at before the month is signed."""
_NO_LINE: Final = {
    "void": "its invoice is void",
    "not invoiced": "its period has no invoice yet",
    "unexplained": "on no invoice, and its period is over or never was: `gateway stripe sync`, then the subscription",
}
"""Why what was delivered is on no line."""


class PayerMonth(NamedTuple):
    """What the database says of one customer in one month. Nano-USD."""

    customer: str
    name: str
    ledger: int
    windows_billed: int
    credit: int
    settled: int
    open: int
    frozen: int
    credit_due: int
    """As of today."""
    events: Sequence[OutboxEvent]
    """Of the month's windows."""
    filed: Sequence[OutboxEvent]
    """That Stripe files in the month or in a period of one of its lines, whatever windows they are of."""
    lines: Sequence[BilledLine]
    """Of void invoices too."""
    subscriptions: Mapping[str, Sequence[Subscription]] | None = None
    """By meter; None where Stripe was never asked about them."""
    accrued: int = 0
    """Taken over by decision from users, who used it before anybody paid; of those, below 0."""


class Difference(NamedTuple):
    """Between two steps, nano-USD: the later step less the earlier."""

    cause: str
    nano: int
    text: str


class PayerResult(NamedTuple):
    """One customer's month, compared."""

    month: PayerMonth
    events_nano: Mapping[str, int]
    """By what has become of them."""
    summaries: int | None
    """Micro-USD; None: not asked, or Stripe has no such customer."""
    delivered_in_month: int
    """What the summaries should have."""
    invoiced: int
    """Micro-USD on the lines."""
    differences: tuple[Difference, ...]

    @property
    def fails(self) -> bool:
        """Whether somebody has to look."""
        return any(one.cause in FAILS for one in self.differences)


def compare_month(
    month: PayerMonth, since: datetime, until: datetime, summary: Mapping[str, Decimal] | str | None, now: datetime
) -> PayerResult:
    """`summary`: what Stripe has counted by meter, or why it cannot say; None where it was not asked."""
    found = [*_in_the_books(month)]
    in_month = [one for one in month.filed if since <= one.at < until]
    delivered = sum(one.value for one in in_month if one.state in DELIVERED)
    counted: int | None = None
    if isinstance(summary, str):
        found.append(Difference("unknown customer", -delivered * NANO_PER_UNIT, summary))
    elif summary is not None:
        for meter in sorted({one.meter for one in in_month} | summary.keys()):
            own = [one for one in in_month if one.meter == meter]
            found += _at_stripe(own, summary.get(meter, Decimal(0)), now)
        counted = int(sum(summary.values(), Decimal(0)))
    lines = [line for line in month.lines if line.status != "void"]
    found += [each for line in lines for each in _on_line(line, month.filed)]
    found += [*_billed_twice(lines), *_on_no_line(month, in_month, now)]
    invoiced = int(sum((line.quantity or Decimal(0) for line in lines), Decimal(0)))
    return PayerResult(month, sum_events(month.events), counted, delivered, invoiced, tuple(found))


def sum_events(events: Sequence[OutboxEvent]) -> dict[str, int]:
    """Nano-USD of the events that count, by what has become of them."""
    sums: dict[str, int] = {}
    for one in events:
        if one.state in ("superseded", "cancelled"):
            continue
        kind = "delivered" if one.state in DELIVERED else "held" if one.state in HELD else one.state
        if kind == "delivered" and one.reason == "late":
            kind = "late"
        sums[kind] = sums.get(kind, 0) + one.value * NANO_PER_UNIT
    return sums


def _in_the_books(month: PayerMonth) -> list[Difference]:
    found = []
    if month.ledger != month.windows_billed:
        text = "the rows of the ledger are not what the windows hold"
        found.append(Difference("unexplained", month.windows_billed - month.ledger, text))
    counted = sum(sum_events(month.events).values())
    carried = counted - month.frozen
    if carried:
        is_small = abs(carried) < NANO_PER_UNIT or abs(carried - month.credit_due) < NANO_PER_UNIT
        text = "carried from and to other months" if is_small else "the events are not what was frozen"
        found.append(Difference("rounding" if is_small else "unexplained", carried, text))
    sums = sum_events(month.events)
    for cause, kind, text in (
        ("in flight", "pending", "meter events that are not delivered yet"),
        ("late", "late", "filed in a later period than the usage is of"),
        ("held", "held", "meter events that wait for a person: `gateway billing held`"),
        ("settled", "settled", "settled by hand"),
        ("settled", "written_off", "written off"),
    ):
        if sums.get(kind):
            found.append(Difference(cause, -sums[kind], text))
    if gone := sum(one.value for one in month.events if one.state == "cancelled"):
        found.append(Difference("cancelled", -gone * NANO_PER_UNIT, "taken back at Stripe, and sent anew or corrected"))
    return found


def _at_stripe(events: Sequence[OutboxEvent], counted: Decimal, now: datetime) -> list[Difference]:
    """Stripe's summaries against what was delivered with a time of the month."""
    delivered = [one for one in events if one.state in DELIVERED]
    difference = counted - sum(one.value for one in delivered)
    if not difference:
        return []
    nano = int(difference * NANO_PER_UNIT)
    recent = [one.value for one in delivered if one.delivered_at is not None and now - one.delivered_at < LAG]
    recent = [-value for value in recent]
    sending = [one.value for one in events if one.state == "pending"]
    if _adds_up([*recent, *sending], difference):
        return [Difference("in flight", nano, "Stripe's summaries lag behind by some minutes")]
    if _adds_up([one.value for one in events if one.state in ("unknown", "rejected")], difference):
        return [Difference("held", nano, "Stripe has counted events that wait for a person: `gateway billing decide`")]
    if _adds_up([one.value for one in events if one.state == "cancelled"], difference):
        return [Difference("cancelled", nano, "Stripe still counts what was taken back")]
    if difference > 0:
        return [Difference("foreign", nano, "Stripe has counted more than was delivered")]
    return [Difference("unexplained", nano, "Stripe has not counted all that was delivered")]


def _on_line(line: BilledLine, filed: Sequence[OutboxEvent]) -> list[Difference]:
    own = [one for one in filed if one.meter == line.meter]
    compared = compare_line(line, own)
    nano = int(compared.rest * NANO_PER_UNIT)
    name = f"{line.invoice}: "
    if line.status == "draft" and nano < 0:
        return [Difference("in flight", nano, f"{name}a draft has what Stripe has counted so far")]
    if nano:
        cause = "foreign" if nano > 0 else "unexplained"
        return [Difference(cause, nano, name + "; ".join(compared.causes))]
    return [Difference("rounding", 0, name + cause) for cause in compared.causes]


def _billed_twice(lines: Sequence[BilledLine]) -> list[Difference]:
    """A line bills all usage of its meter and period: two lines of one time, as of two items, bill it twice."""
    found = []
    billing = [line for line in lines if line.quantity]
    for one, other in combinations(billing, 2):
        if one.meter == other.meter and one.since < other.until and other.since < one.until:
            nano = int(min(one.quantity or 0, other.quantity or 0) * NANO_PER_UNIT)
            text = f"{one.id} ({one.invoice}) and {other.id} ({other.invoice}) bill the same time"
            found.append(Difference("foreign", nano, text))
    return found


def _on_no_line(month: PayerMonth, in_month: Sequence[OutboxEvent], now: datetime) -> list[Difference]:
    """What was delivered with a time of the month, and no line bills."""
    sums: dict[str, int] = {}
    for one in in_month:
        if one.state not in DELIVERED:
            continue
        statuses = {
            line.status for line in month.lines if line.meter == one.meter and line.since <= one.at < line.until
        }
        if statuses - {"void"}:
            continue
        known = None if month.subscriptions is None else month.subscriptions.get(one.meter, ())
        period = period_at(one.at, known)
        is_due = period is None or now >= period.end + DRAFT_BY
        cause = "void" if statuses else "unexplained" if is_due else "not invoiced"
        sums[cause] = sums.get(cause, 0) - one.value * NANO_PER_UNIT
    return [Difference(cause, nano, _NO_LINE[cause]) for cause, nano in sorted(sums.items()) if nano]


def _adds_up(values: Sequence[int], total: Decimal) -> bool:
    """Whether some of these values are this difference."""
    if len(values) > TRIED_MAX:
        return sum(values) == total
    return any(sum(chosen) == total for size in range(1, len(values) + 1) for chosen in combinations(values, size))
