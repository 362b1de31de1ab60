"""Whether Stripe has counted an event is told only where its summary tells it."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.billing.summaries import LAG, HourSent, Verdict, judge_event

NOW = datetime(2026, 11, 26, 6, tzinfo=UTC)
LONG_AGO = NOW - timedelta(hours=21)


def judged(value: int, summary: int | None, *, delivered: int = 0, others: tuple[int, ...] = ()) -> Verdict:
    sent = HourSent(delivered, others, LONG_AGO, is_sending=False)
    return judge_event(value, True, sent, None if summary is None else Decimal(summary), NOW)


@pytest.mark.parametrize(
    ("value", "summary", "delivered", "others", "verdict"),
    [
        (1_000_000, 1_000_000, 0, (), "counted"),
        (1_000_000, 0, 0, (), "not counted"),
        (5, 105, 100, (), "counted"),
        (5, 100, 100, (), "not counted"),
        (5, 103, 100, (), "unclear"),  # somebody else reports there too
        (5, 107, 100, (7,), "not counted"),
        (5, 112, 100, (7,), "counted"),
        (5, 105, 100, (5,), "unclear"),  # one of two alike
        (5, 110, 100, (5,), "counted"),
        (-5, 95, 100, (), "counted"),
        (5, None, 0, (), "unclear"),
    ],
)
def test_verdicts(value: int, summary: int | None, delivered: int, others: tuple[int, ...], verdict: str) -> None:
    assert judged(value, summary, delivered=delivered, others=others) == verdict


def test_summaries_lag() -> None:
    for last_at, is_sending in ((NOW - LAG + timedelta(seconds=1), False), (LONG_AGO, True)):
        sent = HourSent(0, (), last_at, is_sending)
        assert judge_event(5, True, sent, Decimal(5), NOW) == "too early"
    assert judge_event(5, True, HourSent(0, (), NOW - LAG, False), Decimal(5), NOW) == "counted"


def test_what_was_never_sent_needs_no_summary() -> None:
    assert judge_event(5, False, HourSent(0, (), None, is_sending=False), None, NOW) == "never sent"


@given(st.integers(1, 10**9), st.lists(st.integers(1, 10**9), max_size=6), st.data())
def test_a_verdict_is_never_wrong(value: int, others: list[int], data: st.DataObject) -> None:
    """Whatever Stripe has counted of the undecided events: it may be unclear, it is never the wrong one."""
    counted = [each for each in others if data.draw(st.booleans())]
    is_counted = data.draw(st.booleans())
    summary = 7 + sum(counted) + value * is_counted
    found = judged(value, summary, delivered=7, others=tuple(others))
    assert found in ({True: "counted", False: "not counted"}[is_counted], "unclear")
