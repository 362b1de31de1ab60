"""Migrations on a ledger in use: the version before goes on writing, billing and reporting, and nobody waits for long.

A rule for every migration after the last released one: writers never wait a second for it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final

import asyncpg
import pytest

from gateway.audit.reads.payers import read_payers
from gateway.audit.reads.snapshot import AuditRange, snapshot
from gateway.audit.reads.sums import read_amounts, read_counters, read_rollups
from gateway.billing.outbox import Outbox
from gateway.ledger.store import Ledger
from gateway.stores import migrator
from gateway.stores.migrator import migrate
from gateway.stores.postgres import Pool, open_pool
from tests.billing.outboxes import GRACE_S
from tests.conftest import METER, WINDOW_S
from tests.stores import previous_version
from tests.stores.previous_version import STATEMENTS, Connection
from tests.support.events import call, new_id

FIRST: Final = datetime(2026, 11, 1, tzinfo=UTC)
WAIT_MAX: Final = timedelta(seconds=1)
WRITERS: Final = 4
PAUSE_S: Final = 0.01
"""Between two batches of a writer."""
# Who waits for a lock that the migration has or wants, and since when. $1: everybody else.
_WAITING: Final = """
select max(clock_timestamp() - l.waitstart) from pg_locks l
where not l.granted and l.pid = any($1::int[]) and exists (
  select from unnest(pg_blocking_pids(l.pid)) as blocker where blocker <> all($1::int[]))
"""


class Live:
    """Four writers, a reporter and a long reader of the version before, at work until told to stop."""

    def __init__(self, dsn: str, pause_s: float) -> None:
        self.dsn = dsn
        self.pause_s = pause_s
        self.stop = asyncio.Event()
        self.inserted = 0
        self.longest = timedelta(0)
        self._pids: list[int] = []

    async def write(self, number: int, users: list[str], keys: list[str]) -> None:
        random = Random(number)
        async with self._connection() as connection:
            while not self.stop.is_set():
                now = datetime.now(UTC)
                which = [random.randrange(len(users)) for _ in range(20)]
                batch = [call(users[n], new_id(random, now), api_key_id=keys[n]) for n in which]
                with suppress(asyncpg.TransactionRollbackError):  # its writer tries again
                    done = await previous_version.insert_batch(connection, batch)
                    self.inserted += done
                await asyncio.sleep(self.pause_s)

    async def freeze(self) -> None:
        async with self._connection() as connection:
            while not self.stop.is_set():
                with suppress(asyncpg.TransactionRollbackError):
                    await previous_version.freeze_closed(connection, datetime.now(UTC), GRACE_S)
                await asyncio.sleep(0.2)

    async def read(self) -> None:
        """As an audit does: a transaction that holds its tables for longer than a writer may wait."""
        async with self._connection() as connection:
            while not self.stop.is_set():
                async with connection.transaction():
                    await connection.fetchval("select count(*) from openai_usage, stripe_windows where false")
                    await asyncio.sleep(WAIT_MAX.total_seconds() * 1.5)
                await asyncio.sleep(0.5)

    async def watch(self) -> None:
        async with self._connection() as connection:
            while not self.stop.is_set():
                self.longest = max(self.longest, await connection.fetchval(_WAITING, self._pids) or timedelta(0))
                await asyncio.sleep(0.05)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        connection = await asyncpg.connect(self.dsn)
        self._pids.append(connection.get_server_pid())
        try:
            yield connection
        finally:
            await connection.close()


async def _migrate_live(dsn: str, rows: int, pause_s: float) -> Live:
    """Fills a database of the version before, migrates it with everybody at work, and lets them go on for a moment."""
    await migrate(dsn, known=previous_version.migrations())
    connection = await asyncpg.connect(dsn)
    await previous_version.fill(connection, rows, FIRST, timedelta(days=20) / rows)
    owners = await connection.fetch("select user_id::text, id::text from api_keys order by id")
    await connection.close()
    live, (users, keys) = Live(dsn, pause_s), zip(*owners, strict=True)
    async with asyncio.TaskGroup() as tasks:
        for number in range(WRITERS):
            tasks.create_task(live.write(number, list(users), list(keys)))
        for work in (live.freeze, live.read, live.watch):
            tasks.create_task(work())
        try:
            while not live.inserted:
                await asyncio.sleep(0.05)
            await migrate(dsn)
            after = live.inserted
            while live.inserted < after + 100:
                await asyncio.sleep(0.05)
        finally:
            live.stop.set()
    return live


async def _assert_whole(pool: Pool) -> None:
    """Every sum is that of its rows, and each amount is in one place."""
    everything = AuditRange(None, None)
    async with snapshot(pool) as view:
        rollups = await read_rollups(view, everything)
        amounts = await read_amounts(view, everything, 3600)
        payers = await read_payers(view)
        counters = await read_counters(view)
    for found in (rollups.hours, rollups.days, rollups.meetings, rollups.units, rollups.keys, counters.slots):
        assert found.examples == ()
    assert rollups.totals["rows_ever"] == rollups.totals["inserted_ever"]
    of_windows = (amounts.windows, amounts.old_windows, amounts.owed, amounts.frozen, amounts.carry)
    for wrong in (*of_windows, payers.payers, payers.uses, payers.given):
        assert wrong is not None
        assert wrong.examples == ()
    assert amounts.moved is not None
    assert amounts.moved[0] == amounts.moved[1]
    assert payers.credit[0] == payers.credit[1]
    billed = await pool.fetchval("select sum(billed_usd) * 1000000000 from openai_usage")
    assert amounts.totals["nano"] == billed


async def _check(dsn: str, rows: int, pause_s: float = PAUSE_S) -> None:
    live = await _migrate_live(dsn, rows, pause_s)
    assert live.longest < WAIT_MAX
    pool = await open_pool(dsn)
    try:
        counts = await pool.fetch("select books_version, count(*) from openai_usage group by 1 order by 1")
        assert [row[0] for row in counts] == [0, 1]  # both kinds of rows, all of writers of the version before
        assert sum(row[1] for row in counts) == rows + live.inserted
        assert await pool.fetchval("select count(*) from openai_usage where booked_at <> completed_at") == 0
        assert (
            await pool.fetchval("select count(*) from openai_usage where books_version = 0 and plan_version is null")
            == 0
        )
        plans = await pool.fetch(
            "select distinct plan_version from openai_usage where books_version = 0 and cost_usd <> 0"
        )
        assert {row[0] for row in plans} == {"markup:1.2"} | ({"markup:1"} & {row[0] for row in plans})
        await _assert_whole(pool)
        await Ledger(pool, meter=METER, window_s=WINDOW_S).add_units()
        assert await pool.fetchval("select count(*) from units_due") == 0
        await _assert_whole(pool)

        # A reporter of the version before has nothing left to do, and one of this version does the rest.
        async with pool.acquire() as connection:
            assert await previous_version.freeze_closed(connection, datetime.now(UTC) + timedelta(days=2), GRACE_S) == 0
        await Outbox(pool).freeze_closed(datetime.now(UTC) + timedelta(days=2), GRACE_S)
        await _assert_whole(pool)

        # Credit: what was used before is the sum of the rows from before, and what is used since is in windows once.
        before = "select sum(billed_usd) * 1000000000 from openai_usage where user_id = b.user_id and books_version = 0"
        balances = await pool.fetch(f"select *, ({before}) as old from credit_balances b")
        assert [row["used_before_nano"] for row in balances] == [row["old"] for row in balances]
        assert [row["used_nano"] <= row["granted_nano"] for row in balances] == [True]

        for change in ("set booked_at = now()", "set plan_version = 'x'", "set customer_id = null where false"):
            with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
                await pool.execute(f"update openai_usage {change}")
    finally:
        await pool.close()


async def test_a_ledger_in_use_is_migrated(empty_database_url: str) -> None:
    # Writers that leave the machine room for the other tests; the million rows have them at full speed.
    await _check(empty_database_url, 6_000, pause_s=20 * PAUSE_S)


@pytest.mark.long
async def test_a_ledger_of_a_million_rows_in_use_is_migrated(empty_database_url: str) -> None:
    await _check(empty_database_url, 1_000_000)


async def test_a_backfill_goes_on_where_it_was_broken_off(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrator, "BATCH_ROWS", 50)
    dsn, said, waits = empty_database_url, [], asyncio.Event()
    await migrate(dsn, known=previous_version.migrations())
    connection = await asyncpg.connect(dsn)
    await previous_version.fill(connection, 200, FIRST, timedelta(hours=1))
    await migrate(dsn, known=[each for each in migrator.load() if each.version < "20261130100700"])

    def note(text: str) -> None:
        said.append(text)
        waits.set()

    async with connection.transaction():  # somebody is at a row of the third batch
        third = "select id from openai_usage order by id offset 120 limit 1"
        await connection.fetch(f"select from openai_usage where id = ({third}) for update")
        migrating = asyncio.create_task(migrate(dsn, said=note))
        await waits.wait()
        migrating.cancel()
        with suppress(asyncio.CancelledError):
            await migrating
    assert said == ["20261130100700_book_old_rows_in_batches: waits for who is using its tables"]
    assert await connection.fetchval("select count(*) from openai_usage where booked_at is not null") == 100
    assert "book_old_rows_in_batches" in str((await migrate(dsn)).applied)
    pool = await open_pool(dsn)
    await _assert_whole(pool)
    await pool.close()
    await connection.close()


async def test_statements_of_the_version_before_are_understood(database_url: str) -> None:
    """By the planner, which runs nothing."""
    connection = await asyncpg.connect(database_url)
    for name, statement in STATEMENTS.items():
        try:
            await connection.execute(f"explain (generic_plan) {statement}")
        except asyncpg.PostgresError as error:
            raise AssertionError(name) from error
    await connection.close()
    assert len(STATEMENTS) > 25
