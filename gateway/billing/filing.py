"""When an amount is filed: which period holds its window, and whether the invoice of that period still takes it. Pure.

Stripe files usage by its timestamp. Once a period's invoice is final, usage with a timestamp of that period is on no
invoice at all, neither on that one nor on the next (Stripe docs, the invoice's grace period). So what comes too late
for its period is filed at the present, and says so.
"""

from calendar import monthrange
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from gateway.billing.windows import EVENT_AGE_MAX

MARGIN: Final = timedelta(minutes=15)
"""How long before the invoice is final an amount is filed into its period at the latest: it still has to be sent."""
MONTHS_MAX: Final = 36
"""Months of the longest period (Stripe: three years)."""
_SECOND: Final = timedelta(seconds=1)


class FilingRules(NamedTuple):
    """From the settings."""

    invoice_grace_h: int = 1
    """Hours from a period's end until its invoice is final, as set at Stripe."""
    holds_late: bool = False
    """Whether late amounts wait for a person."""


class Subscription(NamedTuple):
    """What is known of one item of a subscription; all periods follow from the one that is known."""

    started_at: datetime
    anchor: datetime
    period_start: datetime
    period_end: datetime
    ended_at: datetime | None


class BillingPeriod(NamedTuple):
    """`end` is exclusive."""

    start: datetime
    end: datetime


class Filing(NamedTuple):
    """Under which time an amount is sent, if it is."""

    at: datetime
    """A whole second."""
    period: BillingPeriod | None
    """The one that holds `at`; None where the amount is not sent."""
    before: datetime | None = None
    """When it becomes too late for that period."""
    is_late: bool = False
    why_not: str | None = None
    """Why it waits for a person instead of being sent."""


def file_amount(
    start: datetime,
    end: datetime,
    now: datetime,
    subscriptions: Sequence[Subscription] | None,
    rules: FilingRules,
) -> Filing:
    """Files what was used from `start` to `end`, both in one period.

    `subscriptions`: those of the customer with the amount's meter, None where nobody has asked Stripe: then its periods
    are taken for calendar months.
    """
    at = min(end - _SECOND, now).replace(microsecond=0)
    own = _period(start, subscriptions)
    if own is None:
        return Filing(at, None, why_not=_why_none(start, subscriptions or ()))
    before = _before(at, own, rules)
    if now < before:
        return Filing(at, own, before)
    present = file_at_present(now, subscriptions, rules)
    late = f"late: its period ended {own.end:%Y-%m-%d %H:%M} UTC"
    if present is None:
        return Filing(at, None, is_late=True, why_not=f"{late}, and there is no later one")
    if rules.holds_late:
        return Filing(present.at, None, is_late=True, why_not=f"{late}; billing.late is hold")
    return present


def file_at_present(now: datetime, subscriptions: Sequence[Subscription] | None, rules: FilingRules) -> Filing | None:
    """Files an amount into the period that runs now, as late; None where none does."""
    at, present = now.replace(microsecond=0), _period(now, subscriptions)
    return None if present is None else Filing(at, present, _before(at, present, rules), is_late=True)


def _before(at: datetime, period: BillingPeriod, rules: FilingRules) -> datetime:
    """When the period's invoice is final, or Stripe takes no event of that time any more; a little earlier."""
    return min(period.end + timedelta(hours=rules.invoice_grace_h), at + EVENT_AGE_MAX) - MARGIN


def edge_within(start: datetime, end: datetime, subscriptions: Sequence[Subscription] | None) -> datetime | None:
    """Where a period ends inside of a window, or the first one begins, so that the window is of two; else None."""
    own = _period(start, subscriptions)
    edges = [each.started_at for each in subscriptions or ()] if own is None else [own.end]
    return min((edge for edge in edges if start < edge < end), default=None)


def period_at(at: datetime, subscriptions: Sequence[Subscription] | None) -> BillingPeriod | None:
    """The period of the invoice that takes an amount with this time."""
    return _period(at, subscriptions)


def month_of(at: datetime) -> BillingPeriod:
    """The calendar month, UTC."""
    first = at.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return BillingPeriod(first, add_months(first, 1, first.day))


def _why_none(start: datetime, subscriptions: Sequence[Subscription]) -> str:
    if not subscriptions:
        return "no subscription: Stripe has none of this customer with a price on this meter"
    if start < min(each.started_at for each in subscriptions):
        return "before subscription: no invoice has this time"
    return "after subscription: it has ended"


def _period(at: datetime, subscriptions: Sequence[Subscription] | None) -> BillingPeriod | None:
    if subscriptions is None:
        return month_of(at)
    found = [period for each in subscriptions if (period := _of_subscription(each, at)) is not None]
    return min(found, key=lambda period: period.end, default=None)


def _of_subscription(of: Subscription, at: datetime) -> BillingPeriod | None:
    if at < of.started_at or (of.ended_at is not None and at >= of.ended_at):
        return None
    start, end = of.period_start, of.period_end
    months, days = _length(of)
    steps = 0
    while not start <= at < end:
        steps += 1 if at >= end else -1
        if months:
            start, end = (add_months(of.period_end, months * (steps + each), of.anchor.day) for each in (-1, 0))
        else:
            start, end = (edge + days * steps for edge in (of.period_start, of.period_end))
    if of.ended_at is not None:
        end = min(end, of.ended_at)
    return BillingPeriod(max(start, of.started_at), end)


def _length(of: Subscription) -> tuple[int, timedelta]:
    """Months, or else days, of a period. A first one that was cut short tells nothing: then it is a month."""
    length = of.period_end - of.period_start
    if length <= timedelta():
        return 1, timedelta()  # no period; periods of no length would never come to any instant
    for months in range(1, MONTHS_MAX + 1):
        if add_months(of.period_end, -months, of.anchor.day) == of.period_start:
            return months, timedelta()
    if of.period_start != of.started_at and length % timedelta(days=1) == timedelta():
        return 0, length
    return (0, length) if length in (timedelta(days=1), timedelta(days=7), timedelta(days=14)) else (1, timedelta())


def add_months(at: datetime, months: int, day: int) -> datetime:
    """`at` some months later or earlier, on the `day` of the anchor, or else on that month's last day."""
    year, month = divmod(at.year * 12 + at.month - 1 + months, 12)
    return at.replace(year=year, month=month + 1, day=min(day, monthrange(year, month + 1)[1]))
