"""Amounts are derived again over a real ledger, after the mark-up was changed back and forth, and plans in mid-hour."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any, Final

import msgspec
from pydantic import SecretStr

import pricing
from gateway.audit.reads.plans import count_corrected, read_plans
from gateway.audit.reads.rows import priced_rows
from gateway.audit.reads.snapshot import AuditRange, snapshot
from gateway.audit.reprice import Reprice
from gateway.audit.result import InvariantResult
from gateway.config.settings import Settings
from gateway.ledger.correct import correct_estimates
from gateway.ledger.rows import LedgerEntry
from gateway.ledger.store import Ledger
from gateway.plans.admin import explain_row
from gateway.stores.postgres import Pool
from gateway.usage.event import OpenRecord, UsageEvent
from gateway.usage.plan_store import FollowPlans
from gateway.usage.plans import KnownPlans
from gateway.usage.settle import Settler, Tokens
from pricing.data import read_texts
from pricing.readers.body import Said
from tests.support.events import linked, new_id
from tests.support.plans import make_plan, plant

BOOK: Final = pricing.parse(read_texts())
HOUR: Final = datetime(2026, 11, 26, 10, 0, tzinfo=UTC)
SMALL: Final = (100, 500)
"""Tokens in and out: 1,025,000 nano-USD of gpt-5-mini, 0.25 and 2 USD per million."""
LARGE: Final = (150, 750)
"""1,537,500 nano-USD."""


def build(markup: str, plans: KnownPlans | None = None) -> Settler:
    """What values calls in a process that was started with this setting."""
    return Settler(BOOK, markup=Decimal(markup), bill_estimates=True, region=None, plans=plans)


class Calls:
    """Of one user, each a minute after the one before it."""

    def __init__(self, ledger: Ledger, user: str, key: str) -> None:
        self.ledger, self.user, self.key = ledger, user, key
        self.dice, self.number = Random(3), 0

    def open(self, at: datetime | None, asked: str | None) -> OpenRecord:
        began = at or HOUR + timedelta(minutes=self.number)
        self.number += 1
        return OpenRecord(
            id=new_id(self.dice, began),
            user_id=self.user,
            api_key_id=self.key,
            endpoint="chat",
            model="gpt-5-mini",
            started_at=began,
            service_tier=asked,
        )

    async def estimate(self, settler: Settler, tokens: tuple[int, int], *, asked: str | None = None) -> OpenRecord:
        opened = self.open(None, asked)
        event = settler.settle_estimated(opened, Said(), opened.started_at, "cut_off", Tokens(*tokens))
        await self.ledger.insert_batch([LedgerEntry.of(event)])
        return opened

    async def make(
        self,
        settler: Settler,
        tokens: tuple[int, int],
        *,
        at: datetime | None = None,
        tier: str = "default",
        asked: str | None = None,
    ) -> UsageEvent:
        opened = self.open(at, asked)
        event = settle(settler, opened, tokens, tier)
        await self.ledger.insert_batch([LedgerEntry.of(event)])
        return event


def settle(settler: Settler, opened: OpenRecord, tokens: tuple[int, int], tier: str = "default") -> UsageEvent:
    usage = msgspec.json.encode(
        {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)}
    )
    said = Said(f"chatcmpl-{opened.id}", "gpt-5-mini-2025-08-07", tier, usage)
    return settler.settle_exact(opened, said, opened.started_at + timedelta(seconds=20))


async def exactness(pool: Pool) -> InvariantResult:
    """INV-3 over the whole ledger."""
    async with snapshot(pool) as view:
        again = Reprice(BOOK, await read_plans(view))
        async for row in priced_rows(view, AuditRange(None, None)):
            again.take(row)
        return again.verdict(await count_corrected(view, again.billed.elsewhere))


async def named(pool: Pool) -> list[tuple[str, int]]:
    """Each row's plan and amount, in the order of the calls."""
    rows = await pool.fetch(
        "select plan_version, (billed_usd * 1000000000)::bigint from openai_usage order by started_at, id"
    )
    return [tuple(row) for row in rows]


async def test_every_row_is_derived_although_the_markup_was_changed_back_and_forth(pool: Pool, ledger: Ledger) -> None:
    """The setting 1.2 → 1.5 → 1.2, each time with all processes started again."""
    calls = Calls(ledger, *await linked(ledger))
    for markup in ("1.2", "1.5", "1.2"):
        settler = build(markup)
        for _ in range(20):
            await calls.make(settler, SMALL, at=HOUR + timedelta(minutes=5 * calls.number))
    expected = [("markup:1.2", 1_230_000)] * 20 + [("markup:1.5", 1_537_500)] * 20 + [("markup:1.2", 1_230_000)] * 20
    assert await named(pool) == expected
    verdict = await exactness(pool)
    assert (verdict.state, verdict.figures["billed amounts derived"]) == ("ok", 60)
    assert verdict.figures["billed by another plan than the one in force"] == 0


async def test_a_change_within_an_hour_adds_up(pool: Pool, ledger: Ledger) -> None:
    """One window: 2,306,250 by the old version and 1,230,000 by the new one are 3,536,250 nano-USD."""
    half = HOUR + timedelta(minutes=30)
    await plant(
        pool, make_plan("standard", "1.5", valid_to=half), make_plan("standard", "1.2", version=2, valid_from=half)
    )
    follow = FollowPlans(pool, monotonic=lambda: 0.0)
    await follow.step_once()
    calls, settler = Calls(ledger, *await linked(ledger)), build("9", follow.known)
    await calls.make(settler, LARGE, at=half - timedelta(seconds=1))  # it ends after the change: its start counts
    await calls.make(settler, SMALL, at=half)
    assert await named(pool) == [("standard@1", 2_306_250), ("standard@2", 1_230_000)]
    windows = await pool.fetch("select window_start, billed_nano from billing_windows")
    assert [tuple(row) for row in windows] == [(HOUR, 3_536_250)]
    verdict = await exactness(pool)
    assert (verdict.state, verdict.figures["billed amounts derived"]) == ("ok", 2)


async def test_a_list_has_prices_of_its_own_by_service_tier(pool: Pool, ledger: Ledger, database_url: str) -> None:
    """The tier that a call was priced by: what the answer names, else what was asked for; also of an estimate."""
    own = {"usd_per_unit": {"gpt-5-mini": {"input_tokens": "0.00001", "flex": {"input_tokens": "0.000001"}}}}
    await plant(pool, make_plan("own", kind="price_list", rates=own | {"factor": "2"}))
    follow = FollowPlans(pool, monotonic=lambda: 0.0)
    await follow.step_once()
    calls, settler = Calls(ledger, *await linked(ledger)), build("9", follow.known)
    await calls.make(settler, SMALL)
    await calls.make(settler, SMALL, tier="flex")
    await calls.make(settler, SMALL, tier="auto", asked="flex")
    await calls.estimate(settler, SMALL, asked="flex")
    await calls.estimate(settler, SMALL)
    # 100 tokens in at the list's price; 500 out at twice OpenAI's, 2 USD per million, half of it in flex.
    default, flex = ("own@1", 1_000_000 + 2_000_000), ("own@1", 100_000 + 1_000_000)
    assert await named(pool) == [default, flex, flex, flex, default]
    verdict = await exactness(pool)
    assert (verdict.state, verdict.figures["billed amounts derived"]) == ("ok", 5)
    settings = Settings(database_url=SecretStr(database_url))
    for row in await pool.fetch("select id::text, (billed_usd * 1000000000)::bigint as nano from openai_usage"):
        assert (await explain_row(settings, row["id"])).derived_nano == row["nano"]


async def test_whatever_a_row_is_its_amount_is_derived_or_counted(pool: Pool, ledger: Ledger) -> None:
    """Paid by credit, an estimate that is not billed, its late answer, and a row of a version that names no plan."""
    await plant(pool, make_plan("standard", "1.5"))
    follow = FollowPlans(pool, monotonic=lambda: 0.0)
    await follow.step_once()
    calls, settler = Calls(ledger, *await linked(ledger)), build("9", follow.known)
    credit = "insert into credit_entries (user_id, amount_usd, created_at) values ($1::uuid, 0.002, $2)"
    await pool.execute(credit, calls.user, HOUR)
    await calls.make(settler, SMALL)
    await calls.make(settler, SMALL)  # credit pays a part of it
    free = Settler(BOOK, markup=Decimal(9), bill_estimates=False, region=None, plans=follow.known)
    opened = await calls.estimate(free, SMALL)
    late = settle(settler, opened, LARGE)
    assert await correct_estimates(ledger, {opened.id: late}, HOUR + timedelta(minutes=50)) == [opened.id]
    old = settle(settler, calls.open(None, None), SMALL)
    await ledger.insert_batch([LedgerEntry.of(msgspec.structs.replace(old, plan_version=""))])
    amounts = [("standard@1", 1_537_500)] * 2 + [("standard@1", 0), ("standard@1", 2_306_250), (None, 1_537_500)]
    assert sorted(await named(pool), key=str) == sorted(amounts, key=str)
    verdict = await exactness(pool)
    figures = [verdict.figures[f"billed {name}"] for name in ("amounts derived", "by a version that names no plan")]
    assert (verdict.state, figures) == ("ok", [4, 1]), verdict
    # A nano more in each is found, but for the row that names no plan.
    await pool.execute("alter table openai_usage disable trigger all")
    await pool.execute("update openai_usage set billed_usd = billed_usd + 0.000000001")
    assert (await exactness(pool)).wrong == ("4 × billed amount is not what its plan makes of the cost",)


async def test_a_proxy_that_missed_a_plan_is_named_until_its_rows_are_corrected(pool: Pool, ledger: Ledger) -> None:
    calls = Calls(ledger, *await linked(ledger))
    follow = FollowPlans(pool, monotonic=lambda: 0.0)
    await follow.step_once()
    await plant(pool, make_plan("standard", "1.5"))
    missed = await calls.make(build("1.2", follow.known), SMALL)
    assert missed.plan_version == "markup:1.2"
    verdict = await exactness(pool)
    assert (verdict.state, verdict.examples) == ("ok", (missed.id,))
    assert verdict.figures["billed by another plan than the one in force"] == 1
    correction: dict[str, Any] = {
        "id": new_id(Random(9)),
        "adjusts": missed.id,
        "evidence": "adjustment",
        "response_id": None,
        "cost_nano": 0,
        "billed_nano": 307_500,
        "cost_lines": (),
        "metadata": {"reason": "corrected_by_hand", "correction": new_id(Random(8))},
    }
    await ledger.insert_batch([LedgerEntry.of(msgspec.structs.replace(missed, **correction))])
    verdict = await exactness(pool)
    assert (verdict.state, verdict.examples) == ("ok", ())
    assert verdict.figures["billed by another plan than the one in force"] == 0
    assert verdict.figures["billed as a person has said"] == 1


async def test_a_plan_that_was_changed_in_the_database_is_found(pool: Pool, ledger: Ledger) -> None:
    await plant(pool, make_plan("standard", "1.5"))
    await pool.execute("alter table plans disable trigger all")
    await pool.execute('update plans set rates = \'{"factor": "1.6"}\'')
    verdict = await exactness(pool)
    assert (verdict.state, verdict.wrong) == ("breach", ("1 × plan is not what its digest says",))
