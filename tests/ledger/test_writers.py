"""Several writers at once, and a database that does not do what it is asked: nothing is lost or counted twice."""

import asyncio
from random import Random
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from gateway.kit.errors import DependencyDown
from gateway.ledger.rows import LedgerEntry
from gateway.ledger.store import Ledger, Outcome
from gateway.stores.postgres import Pool, open_pool
from tests.conftest import METER, WINDOW_S, admin
from tests.support.events import call, linked, new_id, sums_are_right


@pytest.fixture
def random() -> Random:
    return Random(7)


async def test_writers_with_the_same_entries_and_keys_never_deadlock(database_url: str, pool: Pool) -> None:
    random = Random(11)
    setup = Ledger(pool, meter=METER, window_s=WINDOW_S)
    owners = [await linked(setup, f"u{i}") for i in range(6)]
    entries = []
    for i in range(600):
        user, key = random.choice(owners)
        entries.append(
            LedgerEntry.of(call(user, new_id(random), api_key_id=key, seconds=random.randrange(9000), total_tokens=i))
        )
    wide = await open_pool(database_url, connections_max=6)

    async def write(slot: int) -> int:
        ledger, mine, added = Ledger(wide, meter=METER, window_s=WINDOW_S), list(entries), 0
        Random(slot).shuffle(mine)
        for start in range(0, 600, 60):
            added += (await ledger.insert_batch(mine[start : start + 60])).inserted
        return added

    assert sum(await asyncio.gather(*(write(slot) for slot in range(6)))) == 600
    await wide.close()
    assert await sums_are_right(pool)
    assert await pool.fetchval("select deadlocks from pg_stat_database where datname = current_database()") == 0


async def test_no_setting_of_the_database_has_writers_fail_each_other(database_url: str, postgres_dsn: str) -> None:
    name = urlsplit(database_url).path.strip("/")
    await admin(postgres_dsn, f"alter database {name} set default_transaction_isolation = 'repeatable read'")
    pool = await open_pool(database_url, connections_max=1)
    assert await pool.fetchval("select current_setting('transaction_isolation')") == "read committed"
    await pool.close()


@pytest.mark.parametrize("shared", ["keys", "windows"])
async def test_writers_that_share_only_one_kind_of_sum_never_deadlock(
    database_url: str, pool: Pool, shared: str
) -> None:
    """Rows of other models, so that writers do not already queue for the roll-up: the last sums need an order too."""
    setup = Ledger(pool, meter=METER, window_s=WINDOW_S)
    owners = [await linked(setup, f"u{i}") for i in range(12)]
    wide = await open_pool(database_url, connections_max=6)

    async def write(number: int) -> int:
        random, added = Random(number), 0
        ledger = Ledger(wide, meter=METER, window_s=WINDOW_S)
        for _ in range(25):
            batch = []
            for user, key in random.sample(owners, len(owners)):
                paid: dict[str, Any] = {"api_key_id": key, "billed_nano": 0} if shared == "keys" else {}
                batch.append(LedgerEntry.of(call(user, new_id(random), model=f"m{number}", **paid)))
            added += (await ledger.insert_batch(batch)).inserted
        return added

    assert sum(await asyncio.gather(*map(write, range(6)))) == 6 * 25 * 12
    await wide.close()
    assert await sums_are_right(pool)
    assert await pool.fetchval("select deadlocks from pg_stat_database where datname = current_database()") == 0


async def test_a_lock_that_lasts_is_an_outage_and_loses_nothing(database_url: str, pool: Pool, random: Random) -> None:
    quick = await open_pool(database_url, statement_timeout_s=0.2)
    ledger = Ledger(quick, meter=METER, window_s=WINDOW_S)
    user, _ = await linked(ledger)
    entry = LedgerEntry.of(call(user, new_id(random)))
    blocker = await asyncpg.connect(database_url)
    async with blocker.transaction():
        await blocker.execute("lock table usage_hourly")
        with pytest.raises(DependencyDown, match="postgres: QueryCanceledError"):
            await ledger.insert_batch([entry])
    await blocker.close()
    assert await ledger.insert_batch([entry]) == Outcome(1, 0, 0)
    assert await sums_are_right(pool)
    await quick.close()


async def test_a_rolled_back_neighbour_is_tried_again(database_url: str, ledger: Ledger, random: Random) -> None:
    user, _ = await linked(ledger)
    connection = await asyncpg.connect(database_url)
    await connection.execute(
        "create sequence tries; create function fail_first() returns trigger language plpgsql as $$ begin"
        " if nextval('tries') < 3 then raise serialization_failure; end if; return null; end $$;"
        "create trigger fail_first after insert on openai_usage for each statement execute function fail_first()"
    )
    assert await ledger.insert_batch([LedgerEntry.of(call(user, new_id(random)))]) == Outcome(1, 0, 0)
    await connection.execute("alter sequence tries minvalue -1000 restart with -1000")
    with pytest.raises(DependencyDown):
        await ledger.insert_batch([LedgerEntry.of(call(user, new_id(random)))])
    await connection.close()


async def test_nobody_there_is_an_outage() -> None:
    with pytest.raises(DependencyDown, match="postgres"):
        await open_pool("postgresql://postgres@127.0.0.1:1/postgres", connect_timeout_s=1)
