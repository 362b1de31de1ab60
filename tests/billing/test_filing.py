"""When an amount is filed: into its own period while its invoice takes it, at the present afterwards, never lost."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.billing.filing import (
    BillingPeriod,
    Filing,
    FilingRules,
    Subscription,
    add_months,
    edge_within,
    file_amount,
    period_at,
)

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)
OCTOBER_END = datetime(2026, 11, 1, tzinfo=UTC)
LAST = OCTOBER_END - HOUR
"""The last window of October."""


def subscription(anchor: datetime, *, months: int = 1, started_at: datetime | None = None) -> Subscription:
    end = add_months(anchor, months, anchor.day)
    return Subscription(started_at or anchor, anchor, anchor, end, None)


@pytest.mark.parametrize("grace_h", [1, 24, 72])
def test_the_last_instant_of_a_period(grace_h: int) -> None:
    rules = FilingRules(grace_h)
    too_late = OCTOBER_END + grace_h * HOUR - timedelta(minutes=15)
    october = BillingPeriod(datetime(2026, 10, 1, tzinfo=UTC), OCTOBER_END)
    just = file_amount(LAST, OCTOBER_END, too_late - SECOND, None, rules)
    assert just == Filing(OCTOBER_END - SECOND, october, too_late)
    late = file_amount(LAST, OCTOBER_END, too_late, None, rules)
    assert (late.at, late.is_late, late.why_not) == (too_late, True, None)
    assert late.period == BillingPeriod(OCTOBER_END, datetime(2026, 12, 1, tzinfo=UTC))


def test_late_amounts_are_held_where_that_is_set() -> None:
    late = file_amount(LAST, OCTOBER_END, OCTOBER_END + HOUR, None, FilingRules(1, holds_late=True))
    assert late.period is None
    assert late.is_late
    assert "billing.late is hold" in (late.why_not or "")


def test_before_after_and_without_a_subscription() -> None:
    start = datetime(2026, 10, 10, 12, 30, tzinfo=UTC)
    own = subscription(start)
    rules, now = FilingRules(), start + 10 * HOUR
    before = file_amount(start - 10 * HOUR, start - 9 * HOUR, now, [own], rules)
    assert (before.why_not or "").startswith("before subscription")
    assert (file_amount(start, start + HOUR, now, [], rules).why_not or "").startswith("no subscription")
    ended = own._replace(ended_at=start + 5 * HOUR)
    after = file_amount(start + 6 * HOUR, start + 7 * HOUR, now, [ended], rules)
    assert (after.why_not or "").startswith("after subscription")
    no_later = file_amount(start + 2 * HOUR, start + 3 * HOUR, now, [ended], rules)
    assert "no later one" in (no_later.why_not or "")


def test_a_yearly_period_takes_nothing_that_stripe_does_not_take() -> None:
    own = subscription(datetime(2026, 1, 1, tzinfo=UTC), months=12)
    start = datetime(2026, 3, 1, tzinfo=UTC)
    assert not file_amount(start, start + HOUR, start + timedelta(days=34), [own], FilingRules()).is_late
    late = file_amount(start, start + HOUR, start + timedelta(days=36), [own], FilingRules())
    assert late.is_late
    assert late.at == start + timedelta(days=36)


def test_an_anchor_within_an_hour_divides_its_window() -> None:
    own = subscription(datetime(2026, 10, 10, 12, 30, tzinfo=UTC))
    start = datetime(2026, 11, 10, 12, tzinfo=UTC)
    edge = edge_within(start, start + HOUR, [own])
    assert edge == datetime(2026, 11, 10, 12, 30, tzinfo=UTC)
    assert file_amount(start, edge, start + 2 * HOUR, [own], FilingRules(72)).at == edge - SECOND
    assert edge_within(start - HOUR, start, [own]) is None
    assert edge_within(start, start + HOUR, None) is None
    # So does a subscription's beginning, or a new customer's first hour would be on no invoice.
    first = own.started_at.replace(minute=0)
    assert edge_within(first, first + HOUR, [own]) == own.started_at
    assert file_amount(own.started_at, first + HOUR, start, [own], FilingRules(72)).why_not is None
    assert edge_within(first - HOUR, first, [own]) is None


@pytest.mark.parametrize(
    ("anchor", "starts"),
    [
        ("2026-01-31", ["2026-01-31", "2026-02-28", "2026-03-31", "2026-04-30"]),
        ("2026-01-15", ["2026-01-15", "2026-02-15", "2026-03-15"]),
    ],
)
def test_periods_follow_the_anchor(anchor: str, starts: list[str]) -> None:
    own = subscription(datetime.fromisoformat(anchor).replace(tzinfo=UTC))
    edges = [datetime.fromisoformat(each).replace(tzinfo=UTC) for each in starts]
    for start, end in pairwise(edges):
        assert period_at(start, [own]) == BillingPeriod(start, end)
        assert period_at(end - SECOND, [own]) == BillingPeriod(start, end)


@pytest.mark.parametrize("hours", [0, -5])
def test_a_period_of_no_length_is_taken_for_a_month(hours: int) -> None:
    """Stripe has none; one in the database must not keep the reporter busy for ever."""
    own = subscription(OCTOBER_END)._replace(period_end=OCTOBER_END + hours * HOUR)
    at = datetime(2027, 3, 10, tzinfo=UTC)
    found = period_at(at, [own])
    assert found is not None
    assert found.start <= at < found.end


@given(
    st.datetimes(datetime(2024, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - naive bounds
    st.sampled_from([1, 2, 3, 6, 12]),
    st.integers(-200, 200),
    st.integers(0, 40 * 24 * 3600),
)
def test_every_instant_is_in_one_period_whichever_is_known(
    anchor: datetime, months: int, steps: int, seconds: int
) -> None:
    """Knowing another period of the same subscription gives the same answer."""
    first = subscription(anchor, months=months, started_at=datetime(1990, 1, 1, tzinfo=UTC))
    start, end = (add_months(anchor, months * (steps // months + each), anchor.day) for each in (0, 1))
    other = first._replace(period_start=start, period_end=end)
    at = anchor + timedelta(seconds=seconds)
    found = period_at(at, [first])
    assert found is not None
    assert found.start <= at < found.end
    assert period_at(at, [other]) == found
    assert period_at(found.end, [first]) != found
