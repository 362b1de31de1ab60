"""Four writers insert while a month is sealed and its pack is read: each late row is in exactly one month, and what the
pack says of its month is true for ever."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Final

import pytest

from gateway.accounts.store import Accounts
from gateway.billing.bridge_store import reading_once
from gateway.close.pack import PackWriter
from gateway.close.pack_reads import read_blocks
from gateway.close.rows import decode_rows
from gateway.close.seal import seal
from gateway.close.totals import Totals
from gateway.close.verify import read_lines
from gateway.kit.ids import uuid7
from gateway.ledger.rows import LedgerEntry
from gateway.ledger.store import Ledger
from gateway.stores.postgres import Pool
from gateway.usage.event import encode
from tests.support.events import call

WRITERS: Final = 4
BATCHES: Final = 6


def month_of(seed: int) -> datetime:
    return datetime(1990 + seed // 12, seed % 12 + 1, 1, tzinfo=UTC)


async def write(ledger: Ledger, user: str, month: datetime, dice: Random) -> list[str]:
    """Batches of rows of the end of the month and of the next one's beginning."""
    until, ids = (month + timedelta(days=31)).replace(day=1), []
    for _ in range(BATCHES):
        entries = []
        for _ in range(dice.randint(1, 5)):
            at = until + timedelta(seconds=dice.choice((-1, -1, -3600, 0, 1)), microseconds=dice.choice((0, 999_999)))
            cost = dice.randint(0, 10**6)
            event_id = uuid7(int(at.timestamp() * 1000), dice.getrandbits(80))
            event = call(user, event_id, started_at=at, completed_at=at, cost_nano=cost, billed_nano=2 * cost)
            entries.append(LedgerEntry(event.id, encode(event)))
            ids.append(event.id)
        await ledger.insert_batch(sorted(entries))
        await asyncio.sleep(dice.choice((0, 0, 0.002)))
    return ids


async def race(pool: Pool, user: str, seed: int, folder: Path) -> None:
    """One month: sealed and read while four writers write."""
    dice, month = Random(seed), month_of(seed)
    until = (month + timedelta(days=31)).replace(day=1)
    ledgers = [Ledger(pool, meter="openai_usage_micro_usd", window_s=3600) for _ in range(WRITERS)]

    async def close() -> Totals:
        await asyncio.sleep(dice.choice((0, 0.002, 0.01)))
        await seal(pool, until)
        async with reading_once(pool) as connection:
            return (await PackWriter(folder, f"{month:%Y-%m}").write_rows(read_blocks(connection, month, until))).totals

    writing = [write(each, user, month, Random(f"{seed} {number}")) for number, each in enumerate(ledgers)]
    totals, written = await asyncio.gather(close(), asyncio.gather(*writing))
    packed = {row.id for line in read_lines(folder) for row in decode_rows(line)}
    ids = [event_id for each in written for event_id in each]
    booked = await pool.fetch(
        "select id::text, booked_at, completed_at from openai_usage where id = any($1::uuid[])", ids
    )
    assert len(booked) == len(ids)
    for row in booked:
        assert (row["id"] in packed) == (month <= row["booked_at"] < until), dict(row)
        assert row["booked_at"] == row["completed_at"] or row["booked_at"].year > 2025
    sums = await pool.fetchrow(
        "select count(*), coalesce(sum(cost_usd), 0) * 1000000000 as cost, coalesce(sum(billed_usd), 0) * 1000000000"
        " as billed from openai_usage where booked_at >= $1 and booked_at < $2", month, until,
    )  # fmt: skip
    assert sums is not None
    assert tuple(sums) == (totals.sum("rows"), totals.sum("cost_nano"), totals.sum("billed_nano"))


async def run_races(pool: Pool, seeds: range, folder: Path) -> None:
    user = await Accounts(pool).create_user("ann@example.com", stripe_customer_id="cus_ann")
    for seed in seeds:
        (pack := folder / str(seed)).mkdir()
        await race(pool, user, seed, pack)
    late, rows = await pool.fetchrow("select sum(late_rows), sum(rows) from usage_daily") or (0, 0)
    assert 0 < late < rows  # both sides of the race were met


async def test_each_late_row_is_in_exactly_one_month(pool: Pool, tmp_path: Path) -> None:
    await run_races(pool, range(15), tmp_path)


@pytest.mark.long
async def test_each_late_row_is_in_exactly_one_month_200_times(pool: Pool, tmp_path: Path) -> None:
    await run_races(pool, range(200), tmp_path)
