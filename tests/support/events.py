"""Usage events for tests: one valid call, changed by keyword. Must not price anything."""

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import msgspec

from gateway.accounts.store import Accounts
from gateway.kit.ids import uuid7
from gateway.ledger.store import Ledger
from gateway.stores.postgres import Pool
from gateway.usage.event import UsageEvent
from pricing import Line

AT = datetime(2026, 11, 22, 10, 15, tzinfo=UTC)


def new_id(random: Random, at: datetime = AT) -> str:
    """A UUIDv7 of that instant."""
    return uuid7(int(at.timestamp()) * 1000, random.getrandbits(80))


def call(user_id: str, event_id: str, *, seconds: int = 0, **changes: Any) -> UsageEvent:
    """A reported chat call that ended `seconds` after 10:15 UTC and cost 1,234,567 nano-USD."""
    at = AT + timedelta(seconds=seconds)
    fields: dict[str, Any] = {
        "id": event_id,
        "user_id": user_id,
        "endpoint": "chat",
        "model": "gpt-5-mini",
        "service_tier": "default",
        "evidence": "reported",
        "started_at": at - timedelta(seconds=2),
        "completed_at": at,
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "total_tokens": 120,
        "cost_nano": 1_234_567,
        "billed_nano": 1_234_567,
        "price_version": "2026-11-22",
        "cost_lines": (Line("input", "100", "0.00000025", "0.000025"),),
        "usage": msgspec.Raw(b'{"prompt_tokens":100,"completion_tokens":20,"total_tokens":120}'),
        "response_id": f"chatcmpl-{event_id}",
        "request_id": f"req_{event_id}",
        "metadata": {"status": 200},
    }
    return UsageEvent(**{**fields, **changes})


def audit_sums() -> str:
    """SQL: one row, all true, when every sum beside the ledger equals the ledger."""
    return """
    with ledger as (select count(*) as n, sum(cost_usd) as cost, sum(billed_usd) as billed, sum(total_tokens) as tokens,
      count(*) filter (where adjusts is null) as calls,
      count(*) filter (where adjusts is null and api_key_id is not null) as key_calls from openai_usage),
    hourly as (select coalesce(sum(rows), 0) as n, sum(cost_usd) as cost, sum(billed_usd) as billed,
      sum(total_tokens) as tokens, coalesce(sum(calls), 0) as calls from usage_hourly),
    daily as (select coalesce(sum(rows), 0) as n, sum(cost_nano) as cost, sum(billed_nano) as billed,
      sum(total_tokens) as tokens, coalesce(sum(calls), 0) as calls from usage_daily),
    counters as (select coalesce(sum(entries_read), 0) as entries, coalesce(sum(inserted), 0) as inserted,
      coalesce(sum(duplicates), 0) as duplicates, coalesce(sum(quarantined), 0) as quarantined from flush_counters)
    select
      hourly.n = ledger.n as rows,
      hourly.calls = ledger.calls as calls,
      coalesce(hourly.cost, 0) = coalesce(ledger.cost, 0) as cost,
      coalesce(hourly.billed, 0) = coalesce(ledger.billed, 0) as billed,
      coalesce(hourly.tokens, 0) = coalesce(ledger.tokens, 0) as tokens,
      coalesce((select sum(billed_nano) from billing_windows), 0) = coalesce(ledger.billed, 0) * 1000000000 as windows,
      daily.n = ledger.n and daily.calls = ledger.calls
        and coalesce(daily.cost, 0) = coalesce(ledger.cost, 0) * 1000000000
        and coalesce(daily.billed, 0) = coalesce(ledger.billed, 0) * 1000000000
        and coalesce(daily.tokens, 0) = coalesce(ledger.tokens, 0) as days,
      (select coalesce(sum(usage_count), 0) from api_keys) = ledger.key_calls as keys,
      counters.inserted = ledger.n as inserted,
      counters.quarantined = (select count(*) from usage_quarantine) as quarantined,
      counters.entries = counters.inserted + counters.duplicates + counters.quarantined as entries
    from ledger, hourly, daily, counters
    """


async def sums_are_right(pool: Pool) -> bool:
    """Whether every sum beside the ledger equals it; fails with the names of those that do not."""
    row = await pool.fetchrow(audit_sums())
    assert row is not None
    assert dict(row) == dict.fromkeys(row.keys(), True)
    return True


async def linked(ledger: Ledger, name: str = "a") -> tuple[str, str]:
    """A user and a key of theirs."""
    user = await Accounts(ledger.pool).create_user(f"{name}@example.com")
    return user, await Accounts(ledger.pool).link_key(user, f"key_{name}")
