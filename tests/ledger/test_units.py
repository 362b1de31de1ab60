"""Price lines by day: a worker adds them a little later than their rows, each once, and the audit knows what is due."""

import asyncio
from datetime import timedelta
from decimal import Decimal
from random import Random
from typing import Any

import asyncpg
import pytest

from gateway.accounts.store import Accounts
from gateway.audit.reads.snapshot import AuditRange, snapshot
from gateway.audit.reads.sums import read_rollups
from gateway.ledger import store
from gateway.ledger.rows import LedgerEntry
from gateway.ledger.store import Ledger
from gateway.stores.postgres import Pool, open_pool
from gateway.usage.event import encode
from pricing import Line
from tests.conftest import METER, WINDOW_S
from tests.stores import previous_version
from tests.support.events import AT, call, linked, new_id
from tests.support.patience import ENDS_S

EVERYTHING = AuditRange(None, None)
LINES = (Line("input", "100", "0.00000025", "0.000025"), Line("output", "20", "0.000002", "0.00004"))
SUMS = "select day::text, unit, quantity, usd from usage_daily_units order by 1, 2"


def entry(user: str, random: Random, **changes: Any) -> LedgerEntry:
    return LedgerEntry.of(call(user, new_id(random), **{"cost_lines": LINES, **changes}))


async def wrong(pool: Pool) -> tuple[str, ...]:
    async with snapshot(pool) as view:
        return (await read_rollups(view, EVERYTHING)).units.examples


async def test_lines_are_added_once_and_later_than_their_rows(ledger: Ledger, pool: Pool) -> None:
    user, random = await Accounts(pool).create_user("ann@example.com"), Random(1)
    entries = [entry(user, random) for _ in range(3)]
    await ledger.insert_batch(entries)
    await ledger.insert_batch(entries)
    assert await pool.fetch(SUMS) == []
    assert await wrong(pool) == ()  # they are due
    await ledger.add_units()
    await ledger.add_units()
    day = f"{AT:%Y-%m-%d}"
    expected = [(day, "input", 300, Decimal("0.000075")), (day, "output", 60, Decimal("0.00012"))]
    assert [tuple(row) for row in await pool.fetch(SUMS)] == expected
    assert await pool.fetchval("select count(*) from units_due") == 0
    assert await wrong(pool) == ()
    await ledger.insert_batch(entries)
    await ledger.add_units()
    assert [tuple(row) for row in await pool.fetch(SUMS)] == expected


async def test_a_late_row_has_its_lines_on_the_day_of_its_booking(ledger: Ledger, pool: Pool) -> None:
    user = await Accounts(pool).create_user("ann@example.com")
    await pool.fetchval("select seal_books($1)", AT + timedelta(days=1))
    await ledger.insert_batch([entry(user, Random(1))])
    await ledger.add_units()
    booked = await pool.fetchval("select (booked_at at time zone 'UTC')::date::text from openai_usage")
    assert {row["day"] for row in await pool.fetch(SUMS)} == {booked}
    assert booked > f"{AT:%Y-%m-%d}"


async def test_rows_of_the_version_before_are_added_too(ledger: Ledger, pool: Pool) -> None:
    user = await Accounts(pool).create_user("ann@example.com")
    async with pool.acquire() as connection:
        await previous_version.insert_batch(connection, [call(user, new_id(Random(1)), cost_lines=LINES)])
    await ledger.add_units()
    assert [row["quantity"] for row in await pool.fetch(SUMS)] == [100, 20]
    assert await wrong(pool) == ()


async def test_the_audit_finds_lines_that_were_lost_or_added_twice(ledger: Ledger, pool: Pool) -> None:
    user = await Accounts(pool).create_user("ann@example.com")
    await ledger.insert_batch([entry(user, Random(1))])
    kept = await pool.fetch("select usage_ids from units_due")
    await pool.execute("delete from units_due")
    assert len(await wrong(pool)) == 2  # nobody will add them
    await pool.execute("insert into units_due (usage_ids) values ($1)", kept[0]["usage_ids"])
    await ledger.add_units()
    assert await wrong(pool) == ()
    await pool.execute("insert into units_due (usage_ids) values ($1)", kept[0]["usage_ids"])
    assert len(await wrong(pool)) == 2
    await ledger.add_units()
    assert len(await wrong(pool)) == 2  # added twice


@pytest.mark.parametrize(
    "line",
    [
        "5", '"input"', "null", "{}", '{"unit": "input"}', '{"unit": "input", "usd_per_unit": "cheap"}',
        '{"unit": "input", "usd_per_unit": "NaN"}', '{"unit": "input", "usd_per_unit": "1", "quantity": "Infinity"}',
        '{"unit": "input", "usd_per_unit": "1", "usd": "1e99999"}', '{"unit": "", "usd_per_unit": "1"}',
        f'{{"unit": "{"".join(f"{n:x}" for n in range(4000))}", "usd_per_unit": "1"}}',
        f'{{"unit": "input", "usd_per_unit": "1.{"7" * 9000}"}}',
    ],
)  # fmt: skip
async def test_what_is_no_price_line_stops_nobody(ledger: Ledger, pool: Pool, line: str) -> None:
    """An entry that nobody had to sign may say anything."""
    user, random = await Accounts(pool).create_user("ann@example.com"), Random(1)
    odd = call(user, new_id(random), cost_lines=())
    lines = b'"cost_lines":[%b,{"unit":"output","usd_per_unit":"2"}],' % line.encode()
    raw = encode(odd).replace(b'"endpoint"', lines + b'"endpoint"', 1)
    done = await ledger.insert_batch([LedgerEntry(odd.id, raw), entry(user, random)])
    assert done == store.Outcome(2, 0, 0)
    await ledger.add_units()
    sums = [tuple(row) for row in await pool.fetch("select unit, usd_per_unit, quantity from usage_daily_units")]
    sound = [("input", Decimal("0.00000025"), 100), ("output", Decimal("0.000002"), 20), ("output", Decimal(2), 0)]
    assert sorted(sums) == sound
    assert await wrong(pool) == ()


async def test_a_worker_that_ends_in_the_middle_has_added_nothing(
    ledger: Ledger, database_url: str, pool: Pool
) -> None:
    """And what it has taken stays its own until then: another one goes on with the rest, and waits for nobody."""
    user, random = await Accounts(pool).create_user("ann@example.com"), Random(1)
    await ledger.insert_batch([entry(user, random)])
    dying = await asyncpg.connect(database_url)
    await dying.execute("begin")
    await dying.execute("select 1 from units_due for update")
    await ledger.insert_batch([entry(user, random, seconds=86_400)])
    await ledger.add_units()
    assert [row["quantity"] for row in await pool.fetch(SUMS)] == [100, 20]
    assert await wrong(pool) == ()
    dying.terminate()
    async with asyncio.timeout(ENDS_S):
        while await pool.fetchval("select count(*) from units_due"):
            await ledger.add_units()
    assert [row["quantity"] for row in await pool.fetch(SUMS)] == [100, 20, 100, 20]
    assert await wrong(pool) == ()


async def test_workers_and_writers_at_once_never_wait_in_a_circle(
    database_url: str, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "DUE_MAX", 3)
    setup, random = Ledger(pool, meter=METER, window_s=WINDOW_S), Random(2)
    owners = [await linked(setup, f"u{number}") for number in range(6)]
    wide = await open_pool(database_url, connections_max=7)
    writing = True

    async def write(slot: int) -> None:
        ledger, mine = Ledger(wide, meter=METER, window_s=WINDOW_S), Random(slot)
        for _ in range(12):
            chosen = [random.choice(owners) for _ in range(15)]
            await ledger.insert_batch(
                [entry(user, mine, api_key_id=key, seconds=mine.randrange(200_000)) for user, key in chosen]
            )

    async def add() -> None:
        ledger = Ledger(wide, meter=METER, window_s=WINDOW_S)
        while writing or await pool.fetchval("select count(*) from units_due"):
            await ledger.add_units()

    adding = [asyncio.create_task(add()) for _ in range(3)]
    await asyncio.gather(*(write(slot) for slot in range(4)))
    writing = False
    await asyncio.gather(*adding)
    await wide.close()
    assert await wrong(pool) == ()
    assert await pool.fetchval("select sum(quantity) from usage_daily_units where unit = 'input'") == 4 * 12 * 15 * 100
    assert await pool.fetchval("select deadlocks from pg_stat_database where datname = current_database()") == 0
