"""What corrects a ledger row: an event with the signed differences, so that the sum over all rows is correct. Pure.

The ledger is append-only; a row is never changed.
"""

from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from gateway.kit.ids import child_id
from gateway.usage.event import UsageEvent
from pricing import nano_text

EXACT: Final = ("reported", "drained")
"""Evidence that may correct an estimate."""


class Recorded(NamedTuple):
    """An estimate as the ledger has it; money in nano-USD."""

    id: str
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cost_nano: int
    billed_nano: int
    plan_version: str | None
    """What it was billed by; None where the version that wrote it did not say."""


def adjustment(estimate: Recorded, exact: UsageEvent, now: datetime) -> UsageEvent:
    """The row that turns `estimate` into `exact`, which is the same call, priced. It counts where it is made: `now`.

    Its id comes from the call's, so that however often it is made it is one row. `exact` has a cost.
    """
    assert exact.id == estimate.id
    assert exact.cost_nano is not None
    assert exact.billed_nano is not None
    return msgspec.structs.replace(
        exact,
        id=child_id(estimate.id, "exact"),
        adjusts=estimate.id,
        evidence="adjustment",
        completed_at=now,
        prompt_tokens=(exact.prompt_tokens or 0) - estimate.prompt_tokens,
        completion_tokens=(exact.completion_tokens or 0) - estimate.completion_tokens,
        total_tokens=(exact.total_tokens or 0) - estimate.total_tokens,
        cost_nano=exact.cost_nano - estimate.cost_nano,
        billed_nano=exact.billed_nano - estimate.billed_nano,
        cost_lines=(),  # those of the whole call would not add up to a difference
        response_id=None,
        metadata={
            **exact.metadata,
            "reason": "openai_said_later",
            "exact_evidence": exact.evidence,
            "exact_cost_usd": nano_text(exact.cost_nano),
            "exact_billed_usd": nano_text(exact.billed_nano),
            # What `exact_billed_usd` follows from, together with the plan.
            "exact_lines": exact.cost_lines,
        },
    )
