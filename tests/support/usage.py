"""Makes usage events for tests: one call of a user, at an instant, for an amount. No other defaults hide in it."""

from datetime import datetime, timedelta
from uuid import uuid4

from gateway.ledger.rows import LedgerEntry
from gateway.usage.event import Evidence, UsageEvent


def usage(
    user_id: str,
    at: datetime,
    nano: int | None,
    *,
    cost_nano: int | None = None,
    evidence: Evidence = "reported",
    model: str = "gpt-5-mini-2025-08-07",
    api_key_id: str | None = None,
    adjusts: str | None = None,
    tokens: tuple[int, int] = (100, 20),
    plan_version: str = "",
) -> UsageEvent:
    """A chat call completed at `at`, billed `nano` nano-USD (and costing as much, unless `cost_nano` says else)."""
    return UsageEvent(
        id=str(uuid4()),
        plan_version=plan_version,
        user_id=user_id,
        endpoint="chat",
        model=model,
        evidence=evidence,
        started_at=at - timedelta(seconds=1),
        completed_at=at,
        api_key_id=api_key_id,
        prompt_tokens=tokens[0],
        completion_tokens=tokens[1],
        total_tokens=sum(tokens),
        cost_nano=nano if cost_nano is None else cost_nano,
        billed_nano=nano,
        price_version="test",
        adjusts=adjusts,
    )


def entries(*events: UsageEvent) -> list[LedgerEntry]:
    """The events as the batch writer takes them."""
    return [LedgerEntry.of(event) for event in events]
