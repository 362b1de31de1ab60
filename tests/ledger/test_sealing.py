"""Months that are sealed while writers are at work: each row is in one period for good, whichever came first."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from gateway.accounts.store import Accounts
from gateway.ledger.store import Ledger, Outcome
from gateway.stores.postgres import Pool, open_pool
from tests.conftest import METER, WINDOW_S
from tests.stores import previous_version
from tests.support.events import sums_are_right
from tests.support.patience import ENDS_S
from tests.support.usage import entries, usage

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)
TOTALS = """
select coalesce(sum(rows), 0)::bigint as rows, coalesce(sum(billed_nano), 0)::bigint as billed
from usage_daily where day < '2026-11-01'
"""
BOOKED = """
select count(*), coalesce(sum(billed_usd) * 1000000000, 0)::bigint from openai_usage
where user_id = $1 and booked_at < $2
"""
DAYS = """
select coalesce(sum(rows), 0)::bigint, coalesce(sum(billed_nano), 0)::bigint from usage_daily
where user_id = $1 and day < $2
"""
WINDOWS = """
select coalesce(sum(billed_nano), 0)::bigint from billing_windows where user_id = $1 and window_start < $2
"""


async def figures(pool: Pool, query: str, *arguments: object) -> tuple[int, int]:
    """Rows and nano-USD."""
    (row,) = await pool.fetch(query, *arguments)
    return row[0], row[1]


async def test_a_late_row_of_a_sealed_month_is_booked_now(ledger: Ledger, pool: Pool) -> None:
    user = await Accounts(pool).create_user("ann@example.com")
    early = usage(user, NOVEMBER - timedelta(hours=3), 9)
    late = usage(user, NOVEMBER - timedelta(hours=2), 50_000_000_000)
    await ledger.insert_batch(entries(early))
    assert await pool.fetchval("select seal_books($1)", NOVEMBER) == NOVEMBER
    closed = await figures(pool, TOTALS)
    begun = await pool.fetchval("select clock_timestamp()")
    await ledger.insert_batch(entries(late, usage(user, NOVEMBER, 5)))
    assert await figures(pool, TOTALS) == closed == (1, 9)
    booked = await pool.fetch("select id::text, booked_at from openai_usage where booked_at <> completed_at")
    assert [row["id"] for row in booked] == [late.id]
    assert booked[0]["booked_at"] >= begun
    assert await pool.fetchval("select sum(late_rows) from usage_daily") == 1
    assert [row["booked_at"] for row in await pool.fetch("select * from late_rows")] == [booked[0]["booked_at"]]
    # Views of usage and budgets go by when it happened.
    hours = await pool.fetch("select hour from usage_hourly order by 1")
    assert [row["hour"] for row in hours] == [NOVEMBER - timedelta(hours=3), NOVEMBER - timedelta(hours=2), NOVEMBER]
    assert await sums_are_right(pool)
    # Never back.
    assert await pool.fetchval("select seal_books($1)", OCTOBER) == NOVEMBER


async def test_a_row_of_the_version_before_is_booked_too(ledger: Ledger, pool: Pool) -> None:
    user = await Accounts(pool).create_user("ann@example.com", stripe_customer_id="cus_1")
    await pool.fetchval("select seal_books($1)", NOVEMBER)
    old = [usage(user, NOVEMBER - timedelta(hours=1), 7), usage(user, NOVEMBER, 5)]
    async with pool.acquire() as connection:
        assert await previous_version.insert_batch(connection, old) == 2
        assert await previous_version.insert_batch(connection, old) == 0
    assert await pool.fetchval("select count(*) from openai_usage where booked_at = completed_at") == 1
    assert await pool.fetchval("select bool_and(customer_id is not null and books_version = 1) from openai_usage")
    assert await pool.fetchval("select count(*) from stripe_windows") == 0
    assert await sums_are_right(pool)


async def test_a_writer_that_is_under_way_is_waited_for(ledger: Ledger, pool: Pool) -> None:
    """It has read the old bound: the month is sealed once its rows are there."""
    user = await Accounts(pool).create_user("ann@example.com")
    async with pool.acquire() as writer:
        transaction = writer.transaction()
        await transaction.start()
        own = Ledger(_Single(writer), meter=METER, window_s=WINDOW_S)  # type: ignore[arg-type]
        assert await own.insert_batch(entries(usage(user, NOVEMBER - timedelta(hours=1), 7))) == Outcome(1, 0, 0)
        sealing = asyncio.create_task(pool.fetchval("select seal_books($1)", NOVEMBER))
        waits = "select count(*) from pg_locks where locktype = 'advisory' and not granted and mode = 'ExclusiveLock'"
        while not await pool.fetchval(waits):
            await asyncio.sleep(0.01)
        # One that comes now waits for the sealing, and sees the bound although its statement began before.
        late = asyncio.create_task(ledger.insert_batch(entries(usage(user, NOVEMBER - timedelta(hours=1), 11))))
        while await pool.fetchval("select count(*) from pg_locks where locktype = 'advisory' and not granted") < 2:
            await asyncio.sleep(0.01)
        await transaction.commit()
    await sealing
    await late
    assert await figures(pool, TOTALS) == (1, 7)


async def test_a_writer_that_changes_the_window_and_sealing_never_wait_in_a_circle(pool: Pool) -> None:
    """A correction is booked in one transaction, which says first where amounts accrue."""
    user = await Accounts(pool).create_user("ann@example.com")
    async with pool.acquire() as writer:
        transaction = writer.transaction()
        await transaction.start()
        await writer.execute("update books set window_seconds = window_seconds * 2")
        sealing = asyncio.create_task(pool.fetchval("select seal_books($1)", NOVEMBER))
        async with asyncio.timeout(ENDS_S):
            while not await pool.fetchval("select count(*) from pg_locks where not granted"):
                await asyncio.sleep(0.01)
        own = Ledger(_Single(writer), meter=METER, window_s=WINDOW_S * 2)  # type: ignore[arg-type]
        assert await own.insert_batch(entries(usage(user, NOVEMBER - timedelta(hours=1), 7))) == Outcome(1, 0, 0)
        await transaction.commit()
    assert await sealing == NOVEMBER
    assert await figures(pool, TOTALS) == (1, 7)


class _Single:
    """One connection as a writer uses a pool."""

    def __init__(self, connection: object) -> None:
        self.fetch = connection.fetch  # type: ignore[attr-defined]


async def _race(pool: Pool, writers: Sequence[Pool], seed: int) -> None:
    """Four writers insert rows on both sides of a month's end while it is sealed; each seed has a month of its own."""
    random = Random(seed)
    month = NOVEMBER + timedelta(days=31 * seed)
    user = await Accounts(pool).create_user(f"user{seed}@example.com")
    before = timedelta(hours=3)
    sealed_totals: list[tuple[int, int]] = []

    async def write(number: int) -> None:
        mine, ledger = Random(seed * 10 + number), Ledger(writers[number], meter=METER, window_s=WINDOW_S)
        for _ in range(mine.randrange(2, 6)):
            rows = [usage(user, month - before + mine.random() * 2 * before, mine.randrange(1, 999)) for _ in range(5)]
            await ledger.insert_batch(entries(*rows))

    async def seal() -> None:
        await asyncio.sleep(random.random() * 0.02)
        await pool.fetchval("select seal_books($1)", month)
        sealed_totals.append(await figures(pool, BOOKED, user, month))

    await asyncio.gather(*(write(number) for number in range(4)), seal())
    assert [await figures(pool, BOOKED, user, month)] == sealed_totals
    assert await figures(pool, DAYS, user, month.date()) == sealed_totals[0]
    assert await pool.fetchval(WINDOWS, user, month) == sealed_totals[0][1]
    # Nothing is lost between the two periods either.
    everything = "select sum(billed_usd) * 1e9 = (select sum(billed_nano) from billing_windows where user_id = $1)"
    assert await pool.fetchval(f"{everything} from openai_usage where user_id = $1", user)


async def _races(database_url: str, pool: Pool, seeds: range) -> None:
    writers = [await open_pool(database_url, connections_max=1) for _ in range(4)]
    try:
        for seed in seeds:
            await _race(pool, writers, seed)
    finally:
        for each in writers:
            await each.close()


async def test_a_month_is_sealed_beside_four_writers(database_url: str, pool: Pool) -> None:
    await _races(database_url, pool, range(20))


@pytest.mark.long
async def test_a_month_is_sealed_beside_four_writers_many_times(database_url: str, pool: Pool) -> None:
    await _races(database_url, pool, range(200))
