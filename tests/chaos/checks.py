"""What must hold after chaos: the ledger against the call log of the OpenAI stand-in, which was never killed."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

import asyncpg

from gateway.hosts.lost import REASON as HOST_LOST
from pricing.data import read_texts
from tests.chaos.sums import wrong_sums
from tests.support.recompute import recompute

EXACT: Final = ("reported", "drained")
EXAMPLES: Final = 5


@dataclass
class Verdict:
    """Figures of one run; the first five must be empty."""

    lost: list[str] = field(default_factory=list)
    """Calls that reached OpenAI, or were answered, and have no row."""
    doubled: list[str] = field(default_factory=list)
    """Calls, or upstream answers, with more than one row that corrects none."""
    wrong: list[str] = field(default_factory=list)
    """Rows that say something else than OpenAI, or estimates beyond their bound."""
    invented: list[str] = field(default_factory=list)
    """Rows that cost something and that OpenAI has never seen, other than estimates of calls cut down on their way."""
    sums: list[str] = field(default_factory=list)
    """Roll-ups, counters, windows and Stripe's figures that are not the sum of the rows."""
    evidence: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    unseen: int = 0
    """Estimates of calls that never reached OpenAI: an OPEN alone proves nothing."""

    gone: int = 0
    """Calls without a row that a lost disk took with it, within the bound of docs/faults.md."""
    host_lost: int = 0
    """Estimates of calls in flight on a host that was lost."""

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.lost or self.doubled or self.wrong or self.invented or self.sums)


async def healed(dsn: str, truth: Collection[str], within_s: float) -> float:
    """Seconds until every call of the truth has its row; `within_s` when some still have none."""
    begun = time.monotonic()
    while (waited := time.monotonic() - begun) < within_s:
        if not await missing(dsn, truth):
            return waited
        await asyncio.sleep(0.5)
    return within_s


async def billed(dsn: str, within_s: float) -> None:
    """Until all that has a row is with Stripe, or so many seconds have passed."""
    await until(
        dsn,
        within_s,
        "select not exists (select from billing_windows where open) and not exists "
        "(select from stripe_meter_events where state = 'pending')",
        # The lease of a reporter that was killed has run out: moved here, not waited for.
        "update stripe_meter_events set next_attempt_at = now() where state = 'pending'",
    )


async def until(dsn: str, within_s: float, question: str, meanwhile: str = "") -> None:
    """Until the answer is yes, or so many seconds have passed: what is missing then is for the checks to say."""
    connection = await asyncpg.connect(dsn)
    try:
        for _ in range(int(within_s / 0.1)):
            if meanwhile:
                await connection.execute(meanwhile)
            if await connection.fetchval(question):
                return
            await asyncio.sleep(0.1)
    finally:
        await connection.close()


async def missing(dsn: str, truth: Collection[str]) -> int:
    """Calls of the truth that have no row yet."""
    there = await _rows(dsn, "select id::text from openai_usage where adjusts is null")
    return len(set(truth) - {row[0] for row in there})


async def verdict(
    dsn: str,
    truth: Mapping[str, dict[str, Any]],
    stripe_events: Sequence[Mapping[str, Any]],
    answered: AbstractSet[str] = frozenset(),
    gone: AbstractSet[str] = frozenset(),
) -> Verdict:
    """Every row against every call, and every sum against the rows; `stripe_events` are those that Stripe accepted,
    `answered` the calls whose answers a client has, `gone` those that a lost disk may have taken with it."""
    every = await _rows(dsn, "select *, id::text as event, adjusts::text as of from openai_usage")
    found, prices = Verdict(calls=len(truth), sums=await wrong_sums(dsn, stripe_events)), read_texts()
    corrections: dict[str, list[asyncpg.Record]] = {}
    originals: dict[str, asyncpg.Record] = {}
    for row in every:
        found.evidence[row["evidence"]] += 1
        if row["of"] is not None:
            corrections.setdefault(row["of"], []).append(row)
        elif row["event"] in originals:
            found.doubled.append(row["event"])
        else:
            originals[row["event"]] = row
    answers = Counter(row["response_id"] for row in originals.values() if row["response_id"])
    found.doubled += [answer for answer, count in answers.items() if count > 1]
    unrecorded = (truth.keys() | answered) - originals.keys()
    found.lost, found.gone = sorted(unrecorded - gone), len(unrecorded & gone)
    found.host_lost = sum(
        row["evidence"] == "estimated" and json.loads(row["metadata"])["reason"] == HOST_LOST
        for row in originals.values()
    )
    for event, row in originals.items():
        call = truth.get(event)
        if call is None:
            found.unseen += row["evidence"] == "estimated"
            if row["evidence"] not in ("estimated", "void") or (row["evidence"] == "void" and row["cost_usd"]):
                found.invented.append(event)
        elif not _is_right(row, corrections.get(event, []), call, prices):
            found.wrong.append(event)
    return found


def _is_right(
    row: asyncpg.Record, corrections: Sequence[asyncpg.Record], call: dict[str, Any], prices: dict[str, str]
) -> bool:
    charged = call["usage"]
    cost = None if charged is None else _cost(row, charged, prices)
    if row["evidence"] in EXACT:
        return bool(json.loads(row["usage"]) == charged and row["cost_usd"] == cost)
    if row["evidence"] == "estimated":
        bound = Decimal(json.loads(row["metadata"])["bound_usd"])
        if corrections:  # which say what OpenAI did: the estimate was made without an answer's model and tier
            exact = Decimal(0) if charged is None else _cost(corrections[-1], charged, prices)
            return bool(row["cost_usd"] + sum(each["cost_usd"] for each in corrections) == exact)
        return bool(json.loads(row["metadata"])["reason"]) and max(row["cost_usd"], cost or 0) <= bound
    # Never `void` what OpenAI charged for; nothing here is without a price.
    return row["evidence"] == "void" and charged is None


def _cost(row: asyncpg.Record, usage: dict[str, Any], prices: dict[str, str]) -> Decimal | None:
    return recompute(prices, row["endpoint"], row["model"], row["service_tier"], row["started_at"], usage)


async def _rows(dsn: str, query: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(dsn)
    try:
        return list(await connection.fetch(query))
    finally:
        await connection.close()
