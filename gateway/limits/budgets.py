"""Budgets as rules: which call counts against which budget, and when a period begins. Pure; counts nothing.

Money is an integer of nano-USD. Days and months are UTC. A budget that names a model counts its dated snapshots too
(`gpt-5` counts `gpt-5-2025-08-07`), because OpenAI's answers name the snapshot.
"""

from datetime import UTC, datetime, timedelta
from typing import Final, Literal

import msgspec

from gateway.openai.models import is_model

Period = Literal["day", "month", "total"]
Counts = Literal["cost_usd", "billed_usd"]
LIMIT_USD_MAX: Final = 1_000_000
"""Of one budget; nano-USD beyond it would leave the numbers that Redis scripts can hold exactly (2^53)."""
_GRANTS: Final = "grants:"
WARN_SHARES: Final = (50, 80, 100)
"""Per cent of a soft budget at which a warning is given."""


class Budget(msgspec.Struct, frozen=True):
    """One spending limit, and what counts against it; a scope that is None stands for any."""

    id: str
    """The budget's row, `credit:<user>` for what a user has paid in advance, or `grants:<customer>` for what a customer
    has left at Stripe."""
    user_id: str
    limit_nano: int
    period: Period
    hard: bool
    """Whether a call that might go beyond it is refused; otherwise there is only a warning."""
    since: datetime
    """When it was made: a `total` counts from then on."""
    api_key_id: str | None = None
    meeting_id: str | None = None
    model: str | None = None
    counts: Counts = "cost_usd"

    @property
    def prepaid(self) -> bool:
        """Whether it is credit, not a limit that somebody set."""
        return self.counts == "billed_usd"

    @property
    def grants_of(self) -> str | None:
        """The customer whose credit at Stripe it is."""
        return self.id.removeprefix(_GRANTS) if self.id.startswith(_GRANTS) else None

    def counts_call(self, api_key_id: str | None, meeting_id: str | None, model: str) -> bool:
        """Whether a call of its user counts against it; `model` as it was asked for."""
        return (
            self.api_key_id in (None, api_key_id)
            and self.meeting_id in (None, meeting_id)
            and (self.model is None or is_model(model, self.model))
        )

    def window(self, at: datetime) -> "Window":
        """The period that holds `at`."""
        midnight = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        if self.period == "day":
            return Window(self, midnight, midnight + timedelta(days=1))
        if self.period == "month":
            first = midnight.replace(day=1)
            return Window(self, first, (first + timedelta(days=32)).replace(day=1))
        return Window(self, self.since, None)

    def name(self) -> str:
        """For people: `the user's monthly budget for gpt-5`."""
        if self.prepaid:
            return "prepaid credit" if self.grants_of is None else "the customer's credit"
        whose = "this API key's" if self.api_key_id else "the user's"
        often = {"day": "daily", "month": "monthly", "total": "total"}[self.period]
        of = "".join((f" for {self.model}" if self.model else "", " for this meeting" if self.meeting_id else ""))
        return f"{whose} {often} budget{of}"


class Window(msgspec.Struct, frozen=True):
    """One period of one budget, which has a counter of its own."""

    budget: Budget
    start: datetime
    end: datetime | None
    """None: it never ends."""

    @property
    def name(self) -> str:
        """Unique among all periods of all budgets."""
        return f"{self.budget.id}:{self.start.astimezone(UTC):%Y%m%dT%H%M%S}"
