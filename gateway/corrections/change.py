"""What a correction makes of a ledger row: the row as it is by now, what it shall be, and the difference. Pure.

A row is never changed. Its present sum is the row and every correction of it so far; a new one starts from there.
"""

from datetime import datetime
from typing import Final, NamedTuple

from gateway.kit.errors import OptionError
from gateway.kit.ids import child_id
from gateway.usage.event import UsageEvent
from gateway.usage.plans import Terms, bill
from pricing import nano_text

OPEN: Final = ("estimated", "unpriced")
"""Evidence that a first correction settles, even one of 0: it says that somebody has looked."""


class WantedRow(NamedTuple):
    """What a person wants a row to be; what is None stays, or follows."""

    ref: str
    """The row's id, its request id or its response id."""
    cost_nano: int | None = None
    billed_nano: int | None = None
    void: bool = False
    """The call has not run, or shall count as if: no cost, nothing billed, no tokens."""


class CorrectableRow(NamedTuple):
    """A ledger row that corrects no other one, with what all corrections so far have made of it."""

    id: str
    user_id: str
    email: str
    api_key_id: str | None
    meeting_id: str | None
    endpoint: str
    model: str
    service_tier: str | None
    evidence: str
    started_at: datetime
    completed_at: datetime
    request_id: str | None
    price_version: str
    unpriced: bool
    """Whether its cost is not known: no price, and no correction that gives one."""
    corrections: int
    """Rows that correct it so far."""
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cost_nano: int
    """The sum, 0 where it is not known."""
    billed_nano: int
    plan_version: str | None
    """What it was billed by; None where the version that wrote it did not say."""
    booked_at: datetime
    customer: str | None
    """Who pays for its corrections, at Stripe: whoever pays for the row; None: the amounts accrue."""


class Target(NamedTuple):
    """What a row shall be."""

    row_id: str
    cost_nano: int
    billed_nano: int
    void: bool


class RowChange(NamedTuple):
    """One correction of one row."""

    row: CorrectableRow
    target: Target
    plan_version: str
    """What the row is billed by."""

    @property
    def cost_nano(self) -> int:
        """The difference in cost."""
        return self.target.cost_nano - self.row.cost_nano

    @property
    def billed_nano(self) -> int:
        """The difference in what is billed."""
        return self.target.billed_nano - self.row.billed_nano

    @property
    def is_needed(self) -> bool:
        """False where the row is so already."""
        row = self.row
        settles = row.evidence in OPEN and not row.corrections
        tokens = self.target.void and bool(row.prompt_tokens or row.completion_tokens or row.total_tokens)
        return bool(settles or tokens or self.cost_nano or self.billed_nano)


def plan_change(row: CorrectableRow, wanted: WantedRow, terms: Terms) -> RowChange:
    """The change that makes `row` as it is wanted. `terms` are those that the row was billed by.

    Raises OptionError where an amount is missing and does not follow from anything.
    """
    if wanted.void:
        return RowChange(row, Target(row.id, 0, 0, void=True), terms.name)
    if wanted.cost_nano is None:
        if wanted.billed_nano is None:
            raise OptionError(f"{wanted.ref}: give its cost, what is billed for it, or that it is void")
        if row.unpriced:
            raise OptionError(f"{wanted.ref}: its cost is not known; give it too")
        return RowChange(row, Target(row.id, row.cost_nano, wanted.billed_nano, void=False), terms.name)
    billed = wanted.billed_nano
    if billed is None:
        # By a list of prices the amount follows from the lines, of which a person's cost has none.
        follows = row.unpriced or row.billed_nano == bill(row.cost_nano, (), terms, row.model, None)
        if terms.prices or not follows:
            cost_usd, billed_usd = nano_text(row.cost_nano), nano_text(row.billed_nano)
            raise OptionError(
                f"{wanted.ref}: it is billed {billed_usd} USD for a cost of {cost_usd} USD, which does not follow from "
                f"its cost alone by its plan ({terms.name}); say what is to be billed too"
            )
        billed = bill(wanted.cost_nano, (), terms, row.model, None)
    return RowChange(row, Target(row.id, wanted.cost_nano, billed, void=False), terms.name)


def adjustment_row(change: RowChange, correction_id: str, kind: str, now: datetime) -> UsageEvent:
    """The ledger row of a change. Its id comes from the row, the kind and how often the row was corrected before, so
    that a repeat of the same step is the same row."""
    row = change.row
    void = change.target.void
    return UsageEvent(
        id=child_id(row.id, f"{kind}:{row.corrections}"),
        user_id=row.user_id,
        endpoint=row.endpoint,
        model=row.model,
        evidence="adjustment",
        started_at=row.started_at,
        completed_at=now,
        api_key_id=row.api_key_id,
        meeting_id=row.meeting_id,
        service_tier=row.service_tier,
        prompt_tokens=-row.prompt_tokens if void else 0,
        completion_tokens=-row.completion_tokens if void else 0,
        total_tokens=-row.total_tokens if void else 0,
        cost_nano=change.cost_nano,
        billed_nano=change.billed_nano,
        price_version=row.price_version,
        plan_version=change.plan_version,
        request_id=row.request_id,
        adjusts=row.id,
        metadata={
            "reason": "corrected_by_hand",
            "correction": correction_id,
            "corrected_cost_usd": nano_text(change.target.cost_nano),
            "corrected_billed_usd": nano_text(change.target.billed_nano),
            **({"void": True} if void else {}),
        },
    )
