"""Whatever a process repeats costs the same in its tenth year as in its first: in buffers, which no load changes."""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from gateway.stores.postgres import Pool
from tests.processes.test_loops_restart import LOOPS
from tests.support.aged_database import PAYERS, add_slice, make_people
from tests.support.repeated_statements import Recorded, record_audit, record_loops
from tests.support.statements import modules, plan_of, scans, statements_of
from tests.support.stripe_shop import Shop, open_shop

ROWS, EVENTS = 100_000, 50_000
"""Of the ledger and of the outbox, in each of two slices of time."""
BLOCKS_MAX: Final = 250
"""That a statement may read."""
GROWTH_MAX: Final = 1.25
NOISE: Final = 40
"""Blocks that change with how full a page is, or how deep an index."""
SMALL: Final = 20
"""Pages of a table that nobody needs an index for."""
WITHOUT_STATEMENTS: Final = {
    *("bounds", "slots", "connections", "good keys", "key changes", "recheck", "open calls", "redis memory"),
    "flush helper",
}
"""Loops that do not ask PostgreSQL, or only for a call that runs; the last one asks what `flush` asks."""
DEARER: Final = {
    "public.uninvoiced_nano": (1_500, "a month of one customer's hours, since its last final invoice"),
    "into public.open_items": (5_000, "30 days of estimates, when a worker starts and an hour later"),
}
"""Statements that may read more, by their beginning, and why that does not grow with age."""


BY_PAGE: Final = "from public.rooms\nwhere ($1::text is null or room_name = $1)"
"""Of the API's list of rooms, of which each caller gets a page: with parameters it goes by an index."""
AUDIT_BLOCKS_MAX: Final = 2_000


@pytest.fixture
async def shop(pool: Pool) -> AsyncIterator[Shop]:
    """The vendors' stand-ins, and customers at Stripe for the users of the database."""
    async with open_shop(start=int(time.time())) as opened:
        await make_people(pool, [(await opened.subscribe()).customer for _ in range(PAYERS)])
        yield opened


def blocks_max(query: str) -> int:
    return next((most for part, (most, _) in DEARER.items() if part in query), BLOCKS_MAX)


async def pages(connection: Any) -> dict[str, int]:
    """Of each table."""
    found = await connection.fetch(
        "select relname, relpages from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace"
    )
    return {row["relname"]: row["relpages"] for row in found}


@pytest.mark.long
async def test_nothing_that_is_repeated_grows_with_age(
    pool: Pool, database_url: str, redis_url: str, tmp_path: Path, shop: Shop
) -> None:
    loops, audits, sizes = [], [], []
    async with pool.acquire() as connection:
        await connection.execute("set statement_timeout = 0")
        for age in range(2):
            await add_slice(connection, age, rows=ROWS, events=EVENTS)
            await connection.execute("vacuum analyze", timeout=600)
            sizes.append(await pages(connection))
            loops.append(await record_loops(database_url, pool, redis_url, tmp_path / str(age), shop))
            audits.append(await record_audit(database_url, tmp_path / str(age) / "journal"))
        growing = {name for name, size in sizes[1].items() if size > max(SMALL, 1.2 * sizes[0][name])}
        assert {"openai_usage", "usage_hourly", "billing_windows", "stripe_meter_events", "webhook_inbox"} <= growing
        found = await rare_reads_of_history(connection, loops[1], growing)
    found += [
        *reads_of_history(loops, growing, blocks_max),
        *reads_of_history(audits, growing, lambda _: AUDIT_BLOCKS_MAX),
    ]
    assert found == []
    check_that_all_are_there(loops[1])


def reads_of_history(recorded: Sequence[Recorded], growing: set[str], most: Callable[[str], int]) -> list[str]:
    """What is wrong with which statement; `recorded` is of half the age, and of all of it."""
    (young, old), wrong = recorded, []
    for (loop, query), now in old.statements.items():
        shown, before = f"{loop}: {' '.join(query.split())[:120]}", young.statements.get((loop, query), now).blocks
        if scanned := sorted(now.scans & growing):
            wrong.append(f"{shown}: reads all of {', '.join(scanned)}")
        if now.blocks > most(query):
            wrong.append(f"{shown}: reads {now.blocks} blocks")
        if now.blocks > GROWTH_MAX * before + NOISE:
            wrong.append(f"{shown}: reads {now.blocks} blocks, {before} at half the age")
    return wrong


def check_that_all_are_there(recorded: Recorded) -> None:
    """Each loop was recorded: one that is new runs in its process like the others."""
    assert recorded.loops == set(LOOPS)
    assert {loop for loop, _ in recorded.statements} == set(LOOPS) - WITHOUT_STATEMENTS


async def rare_reads_of_history(connection: Any, recorded: Recorded, growing: set[str]) -> list[str]:
    """What is asked only now and then, planned for any parameters: each statement of a file that has one of a loop."""
    wrong, planned, queries = [], 0, {query for _, query in recorded.statements}
    for module in modules():
        own = statements_of(module)
        for query in sorted(each for each in own - queries if own & queries and BY_PAGE not in each):
            planned += 1
            if scanned := sorted(scans(await plan_of(connection, query)) & growing):
                wrong.append(f"{module}: {' '.join(query.split())[:120]}: reads all of {', '.join(scanned)}")
    assert planned > 50
    return wrong
