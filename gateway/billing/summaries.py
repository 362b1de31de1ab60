"""Whether Stripe has counted an event: by its summary of the customer's hour, and what else was sent for it. Pure."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import combinations
from typing import Final, Literal, NamedTuple

LAG: Final = timedelta(minutes=15)
"""How far Stripe's summaries may lag behind what it has taken."""
OTHERS_MAX: Final = 12
"""Undecided events of one hour whose every combination is tried."""
Verdict = Literal["counted", "not counted", "too early", "unclear", "never sent"]


class HourSent(NamedTuple):
    """What the outbox knows of one customer's hour, besides the event in question."""

    delivered: int
    """Whole micro-USD of the events that Stripe has taken."""
    undecided: tuple[int, ...]
    """Those of the others that it may have."""
    last_at: datetime | None
    """When something was last sent for this hour, the event in question too."""
    is_sending: bool
    """Whether something is on its way."""


def judge_event(value: int, was_sent: bool, sent: HourSent, summary: Decimal | None, now: datetime) -> Verdict:
    """`summary`: micro-USD that Stripe has counted in the hour; None where it says nothing about the customer."""
    if not was_sent:
        return "never sent"
    if sent.is_sending or (sent.last_at is not None and now - sent.last_at < LAG):
        return "too early"
    if summary is None:
        return "unclear"
    difference = summary - sent.delivered
    with_it = without_it = False
    for others in _sums(sent.undecided):
        with_it = with_it or difference == others + value
        without_it = without_it or difference == others
    if with_it == without_it:
        return "unclear"
    return "counted" if with_it else "not counted"


def _sums(values: Sequence[int]) -> set[int]:
    """What any of them add up to; with too many, only of none, each, and all."""
    if len(values) > OTHERS_MAX:
        return {0, *values, sum(values)}
    return {sum(chosen) for size in range(len(values) + 1) for chosen in combinations(values, size)}
