"""Months seal themselves: a while after their end, once, never back, whoever does it and however late."""

import asyncio
from datetime import UTC, date, datetime, timedelta
from typing import Any

import asyncpg
import pytest

import pricing
import pricing.data
from gateway.close.periods import Periods
from gateway.close.seal import Seal, after_end, seal
from gateway.ledger.rows import LedgerEntry
from gateway.ledger.store import Ledger
from gateway.stores.postgres import Pool, in_transaction
from gateway.usage.event import encode
from tests.support.events import call, linked

OCTOBER = datetime(2025, 10, 1, tzinfo=UTC)
NOVEMBER = datetime(2025, 11, 1, tzinfo=UTC)
DECEMBER = datetime(2025, 12, 1, tzinfo=UTC)


async def write(ledger: Ledger, user: str, number: int, at: datetime, **changes: Any) -> str:
    """A row completed at `at`."""
    event_id = f"019a3f4e-0000-7000-8000-{number:012x}"
    event = call(user, event_id, started_at=at - timedelta(seconds=1), completed_at=at, **changes)
    await ledger.insert_batch([LedgerEntry(event.id, encode(event))])
    return event_id


async def booked_at(pool: Pool, event_id: str) -> datetime:
    found: datetime = await pool.fetchval("select booked_at from openai_usage where id = $1::uuid", event_id)
    return found


async def sealed_until(pool: Pool) -> datetime:
    found: datetime = await pool.fetchval("select sealed_until from books")
    return found


async def months(pool: Pool) -> list[tuple[date, int, str]]:
    rows = await pool.fetch("select month, version, state from periods order by month, version")
    return [(row["month"], row["version"], row["state"]) for row in rows]


def test_a_month_is_sealed_a_quarter_of_an_hour_before_its_invoice_is_final() -> None:
    assert after_end(1) == timedelta(minutes=45)
    assert after_end(72) == timedelta(hours=71, minutes=45)


async def test_a_worker_seals_what_is_due_and_nothing_later(pool: Pool, ledger: Ledger) -> None:
    user, _ = await linked(ledger)
    await write(ledger, user, 1, OCTOBER)
    await Seal(pool, invoice_grace_h=1, price_texts=pricing.data.read_texts()).step_once()
    at = await pool.fetchval("select clock_timestamp() - interval '45 minutes'")
    this_month = at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    assert await sealed_until(pool) == this_month
    noted = await months(pool)
    assert noted[0] == (OCTOBER.date(), 1, "sealed")
    assert noted[-1][0] == (this_month - timedelta(days=1)).date().replace(day=1)
    # The month that runs is open: what completes in it is booked when it completes.
    now = await pool.fetchval("select clock_timestamp()")
    assert await booked_at(pool, await write(ledger, user, 2, now)) == now


async def test_nothing_is_due_before_the_grace_has_passed(pool: Pool) -> None:
    since_month = timedelta(days=(await pool.fetchval("select clock_timestamp()")).day - 1)
    first = await Periods(pool).due(since_month)  # as on the first day of this month
    later = await Periods(pool).due(since_month + timedelta(days=1))  # as on the last day of the month before
    assert first is not None
    assert later is not None
    assert later < first


async def test_what_comes_after_the_seal_is_booked_when_it_comes(pool: Pool, ledger: Ledger) -> None:
    user, _ = await linked(ledger)
    last = NOVEMBER - timedelta(microseconds=1)
    early = await write(ledger, user, 1, last)
    assert await seal(pool, NOVEMBER) == [OCTOBER.date()]
    before = await pool.fetchval("select clock_timestamp()")
    late, on_time = await write(ledger, user, 2, last), await write(ledger, user, 3, NOVEMBER)
    assert await booked_at(pool, early) == last
    assert await booked_at(pool, late) >= before
    assert await booked_at(pool, on_time) == NOVEMBER
    assert await pool.fetchval("select sum(late_rows) from usage_daily") == 1


async def test_the_bound_moves_forward_only(pool: Pool, ledger: Ledger) -> None:
    """A clock that was set back, or a worker that slept, seals nothing again and opens nothing."""
    user, _ = await linked(ledger)
    await write(ledger, user, 1, OCTOBER)
    await seal(pool, DECEMBER)
    await seal(pool, NOVEMBER)
    assert await sealed_until(pool) == DECEMBER
    assert await months(pool) == [(OCTOBER.date(), 1, "sealed"), (NOVEMBER.date(), 1, "sealed")]
    age = await pool.fetchval("select clock_timestamp() - $1::timestamptz", DECEMBER)
    assert await Periods(pool).due(age + timedelta(days=1)) is None


async def test_a_worker_that_was_away_for_months_seals_each_of_them(pool: Pool, ledger: Ledger) -> None:
    user, _ = await linked(ledger)
    await write(ledger, user, 1, OCTOBER + timedelta(days=3))
    await seal(pool, NOVEMBER)
    assert await seal(pool, datetime(2026, 3, 1, tzinfo=UTC)) == [
        date(2025, 11, 1), date(2025, 12, 1), date(2026, 1, 1), date(2026, 2, 1)
    ]  # fmt: skip


async def test_two_workers_at_once_seal_once(pool: Pool, ledger: Ledger) -> None:
    user, _ = await linked(ledger)
    await write(ledger, user, 1, OCTOBER)
    done = await asyncio.gather(*(seal(pool, DECEMBER) for _ in range(4)))
    assert sum(map(len, done)) == 2
    assert await months(pool) == [(OCTOBER.date(), 1, "sealed"), (NOVEMBER.date(), 1, "sealed")]


async def test_months_before_any_usage_are_not_noted(pool: Pool) -> None:
    assert await seal(pool, DECEMBER) == []
    assert await sealed_until(pool) == DECEMBER
    assert await months(pool) == []


async def test_the_price_book_of_a_worker_is_kept(pool: Pool) -> None:
    texts = pricing.data.read_texts()
    for _ in range(2):
        await Seal(pool, invoice_grace_h=1, price_texts=texts).step_once()
    kept = await pool.fetchrow("select version, files::text from price_books")
    assert kept is not None
    assert kept["version"] == pricing.parse(texts).version


async def closed_period(pool: Pool) -> None:
    async with in_transaction(pool) as connections:
        periods = Periods(connections)
        assert (await periods.latest(OCTOBER.date())).state == "sealed"
        assert await periods.begin(OCTOBER.date(), 1, "Ada", {"openai": "by hand"})
        assert await periods.finish(OCTOBER.date(), 1, {"rows": 1}, b"head", "digest")


@pytest.mark.parametrize(
    "change",
    [
        "update periods set totals = '{}'",
        "update periods set chain_head = 'x'",
        "update periods set state = 'sealed'",
        "update periods set state = 'reopened', pack_digest = 'x'",
        "delete from periods",
        "truncate periods",
    ],
)
async def test_a_closed_period_does_not_change(pool: Pool, change: str) -> None:
    await closed_period(pool)
    with pytest.raises(asyncpg.RestrictViolationError):
        await pool.execute(change)


async def test_reopening_makes_a_version_and_keeps_the_old_one(pool: Pool) -> None:
    await closed_period(pool)
    async with in_transaction(pool) as connections:
        assert await Periods(connections).reopen(OCTOBER.date(), 1, "a wrong plan")
        assert not await Periods(connections).reopen(OCTOBER.date(), 1, "once more")
    old, new = await Periods(pool).versions(OCTOBER.date())
    assert (old.state, old.totals, old.chain_head, old.pack_digest) == ("reopened", {"rows": 1}, b"head", "digest")
    assert (new.version, new.state, new.why, new.totals) == (2, "sealed", "a wrong plan", None)
