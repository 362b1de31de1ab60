"""An estimate whose exact answer comes later: one adjustment beside it, and every sum is the truth."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from uuid import UUID, uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.accounts.store import Accounts
from gateway.journal.frames import SETTLE
from gateway.ledger.correct import correct_estimates, correct_settled
from gateway.ledger.flush import Flush
from gateway.ledger.rows import LedgerEntry
from gateway.ledger.store import Ledger
from gateway.ledger.stream import Buffer
from gateway.stores.postgres import Pool
from gateway.usage.adjust import Recorded, adjustment
from gateway.usage.event import UsageEvent, encode
from tests.ledger.journals_at_work import JournalShipping, open_shipping
from tests.support.events import call, new_id, sums_are_right

LATER = datetime(2026, 11, 22, 12, 30, tzinfo=UTC)
COUNTS = st.integers(0, 1 << 40)


@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_an_estimate_and_its_adjustment_add_up(tokens: int, exact_tokens: int, cost: int, exact_cost: int) -> None:
    event_id = new_id(Random(1))
    exact = call("u", event_id, prompt_tokens=exact_tokens, cost_nano=exact_cost, billed_nano=exact_cost * 2)
    row = adjustment(Recorded(event_id, tokens, 3, tokens + 3, cost, cost, None), exact, LATER)
    assert (row.adjusts, row.evidence, row.response_id, row.completed_at) == (event_id, "adjustment", None, LATER)
    assert (row.prompt_tokens, row.cost_nano) == (exact_tokens - tokens, exact_cost - cost)
    assert row.billed_nano is not None
    assert row.billed_nano + cost == exact_cost * 2
    assert row.id == adjustment(Recorded(event_id, 0, 0, 0, 0, 0, None), exact, LATER + timedelta(1)).id != event_id


def guess(exact: UsageEvent) -> UsageEvent:
    """The same call as a sweeper would have it."""
    return call(
        exact.user_id,
        exact.id,
        evidence="estimated",
        prompt_tokens=90,
        completion_tokens=500,
        total_tokens=590,
        cost_nano=5_000_000,
        billed_nano=5_000_000,
        metadata={"reason": "process_died", "bound_usd": "0.009000000"},
    )


@pytest.fixture
async def flush(buffer: Buffer, ledger: Ledger) -> Flush:
    return Flush(
        buffer,
        ledger,
        consumer="a",
        batch_rows_max=100,
        interval_s=0.001,
        claim_idle_s=30,
        monotonic=lambda: 0.0,
        now=lambda: LATER,
    )


@pytest.mark.parametrize("together", [False, True])
async def test_the_exact_answer_corrects_the_estimate_once(
    buffer: Buffer, ledger: Ledger, pool: Pool, flush: Flush, together: bool
) -> None:
    user = await Accounts(ledger.pool).create_user("u@example.com")
    exact = call(user, new_id(Random(2)))
    events = [guess(exact), exact, exact]  # the third is a repeat
    for batch in [events] if together else [[event] for event in events]:
        await buffer.append([(event.id, encode(event)) for event in batch])
        while await flush.step_once():
            pass
    rows = await pool.fetch("select *, id::text, adjusts::text as of from openai_usage order by completed_at")
    assert [(row["evidence"], row["of"]) for row in rows] == [("estimated", None), ("adjustment", exact.id)]
    total = await pool.fetchrow(
        "select sum(prompt_tokens)::int, sum(completion_tokens)::int, (sum(cost_usd) * 1000000000)::bigint,"
        " (sum(billed_usd) * 1000000000)::bigint from openai_usage"
    )
    assert total is not None
    assert tuple(total) == (100, 20, 1_234_567, 1_234_567)
    assert rows[1]["usage"] is not None
    assert await sums_are_right(pool)
    assert await pool.fetchval("select sum(billed_nano) from billing_windows") == 1_234_567


@pytest.mark.parametrize("corrected_by", ["an older version", "this version", "a person"])
async def test_what_is_corrected_already_is_not_corrected_again(
    buffer: Buffer, ledger: Ledger, pool: Pool, flush: Flush, corrected_by: str
) -> None:
    user = await Accounts(ledger.pool).create_user("u@example.com")
    exact = call(user, new_id(Random(5)))
    estimate = guess(exact)
    recorded = Recorded(estimate.id, 90, 500, 590, 5_000_000, 5_000_000, None)
    made = adjustment(recorded, exact, LATER)
    ids = {"an older version": str(uuid5(UUID(exact.id), "exact")), "this version": made.id}
    row = replace(made, id=ids.get(corrected_by, new_id(Random(6))))
    await ledger.insert_batch([LedgerEntry.of(estimate), LedgerEntry.of(row)])
    # The same answer again: over the stream, by asking OpenAI, out of quarantine.
    await buffer.append([(event.id, encode(event)) for event in (exact, exact)])
    while await flush.step_once():
        pass
    assert await correct_estimates(ledger, {exact.id: exact}, LATER) == []
    await correct_settled(ledger, [encode(exact)], LATER)
    assert await pool.fetchval("select count(*) from openai_usage where adjusts is not null") == 1
    assert await pool.fetchval("select (sum(cost_usd) * 1000000000)::bigint from openai_usage") == 1_234_567
    assert await sums_are_right(pool)


async def test_writers_that_correct_at_the_same_time_correct_once(ledger: Ledger, pool: Pool) -> None:
    user = await Accounts(ledger.pool).create_user("u@example.com")
    calls = [call(user, new_id(Random(number)), response_id=None) for number in range(10, 30)]
    await ledger.insert_batch([LedgerEntry.of(replace(guess(each), response_id=None)) for each in calls])
    exact = {each.id: each for each in calls}
    # Two read at the same instant, and would make different rows: their clocks differ.
    done = await asyncio.gather(*(correct_estimates(ledger, exact, LATER + timedelta(hours=n)) for n in range(4)))
    assert sorted(map(len, done)) == [0, 0, 0, 20]
    assert await pool.fetchval("select count(*) from openai_usage where adjusts is not null") == 20
    assert await sums_are_right(pool)


async def test_a_correction_that_cannot_be_a_row_goes_to_quarantine(ledger: Ledger, pool: Pool) -> None:
    user = await Accounts(ledger.pool).create_user("u@example.com")
    good, bad = (call(user, new_id(Random(number)), response_id=None) for number in (31, 32))
    await ledger.insert_batch([LedgerEntry.of(replace(guess(each), response_id=None)) for each in (good, bad)])
    exact = {good.id: good, bad.id: replace(bad, endpoint="nul\0")}
    await correct_estimates(ledger, exact, LATER)
    assert await pool.fetchval("select adjusts::text from openai_usage where adjusts is not null") == good.id
    assert await ledger.count_quarantined() == 1
    assert await sums_are_right(pool)


async def test_a_call_that_never_ran_costs_nothing_though_it_was_swept(
    buffer: Buffer, ledger: Ledger, pool: Pool, flush: Flush
) -> None:
    """Its process was thought dead, and says after all that OpenAI has refused the call."""
    user = await Accounts(ledger.pool).create_user("u@example.com")
    estimate = guess(call(user, new_id(Random(3))))
    refused = call(user, estimate.id, evidence="void", cost_nano=0, billed_nano=0, cost_lines=(), response_id=None)
    await buffer.append([(event.id, encode(event)) for event in (estimate, refused)])
    await flush.step_once()
    assert estimate.cost_nano
    rows = await pool.fetch("select evidence, cost_usd, billed_usd from openai_usage order by adjusts nulls first")
    assert [row["evidence"] for row in rows] == ["estimated", "adjustment"]
    assert [sum(row[name] for row in rows) for name in ("cost_usd", "billed_usd")] == [0, 0]
    assert await sums_are_right(pool)


@pytest.mark.parametrize("evidence", ["unpriced", "estimated"])
async def test_nothing_else_corrects_an_estimate(
    buffer: Buffer, ledger: Ledger, pool: Pool, flush: Flush, evidence: str
) -> None:
    user = await Accounts(ledger.pool).create_user("u@example.com")
    exact = call(user, new_id(Random(3)))
    nano = None if evidence == "unpriced" else 7
    other = call(user, exact.id, evidence=evidence, cost_nano=nano, billed_nano=nano)
    await buffer.append([(event.id, encode(event)) for event in (guess(exact), other)])
    await flush.step_once()
    assert [row["evidence"] for row in await pool.fetch("select evidence from openai_usage")] == ["estimated"]


async def test_an_exact_row_is_never_adjusted(buffer: Buffer, ledger: Ledger, pool: Pool, flush: Flush) -> None:
    user = await Accounts(ledger.pool).create_user("u@example.com")
    exact = call(user, new_id(Random(4)))
    await buffer.append([(event.id, encode(event)) for event in (exact, guess(exact), exact)])
    await flush.step_once()
    assert [row["evidence"] for row in await pool.fetch("select evidence from openai_usage")] == ["reported"]


@pytest.fixture
async def shipping(tmp_path: Path, buffer: Buffer, ledger: Ledger) -> AsyncIterator[JournalShipping]:
    async with open_shipping(tmp_path, buffer, ledger) as made:
        yield made


@pytest.mark.parametrize("confirmed_first", [False, True])
async def test_a_call_that_is_settled_twice_in_the_journal_is_sent_twice(
    shipping: JournalShipping, pool: Pool, flush: Flush, confirmed_first: bool
) -> None:
    (exact,) = await shipping.settle()
    # The estimate of a sweeper, in the series before it, was read and shipped first.
    early = shipping.writer("w1")
    early.open()
    twin = guess(call(exact.user_id, new_id(Random(9))))
    await early.append(SETTLE, encode(twin))
    await shipping.ship.step_once()
    if confirmed_first:
        while await flush.step_once():
            pass
        await shipping.after(5)
    await early.append(SETTLE, encode(call(exact.user_id, twin.id)))
    for _ in range(4):
        await shipping.after(5)
        while await flush.step_once():
            pass
    early.close()
    found = await pool.fetch("select evidence from openai_usage where id = $1 or adjusts = $1", twin.id)
    assert sorted(row["evidence"] for row in found) == ["adjustment", "estimated"]
    assert shipping.ship.unconfirmed == 0
