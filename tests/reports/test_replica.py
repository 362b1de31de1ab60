"""Reports of a replica, REPORTS_DATABASE_URL: a real standby, how old its data are, and where it gives way."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from gateway.config.settings import Settings
from gateway.kit.errors import DependencyDown
from gateway.ledger.rows import LedgerEntry
from gateway.ledger.store import Ledger
from gateway.reports.replica import describe_lag, reports_database
from gateway.stores.migrator import migrate
from gateway.stores.postgres import open_pool, translating_errors
from tests.conftest import METER, WINDOW_S
from tests.support.events import call, linked, new_id
from tests.support.invoke import Done, gateway
from tests.support.patience import until_now
from tests.support.postgres_pair import PostgresPair, ask, postgres_pair

RANDOM = Random(17)
NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"
AT = datetime(2026, 11, 22, 10, 15, 3, 5, tzinfo=UTC)


def test_how_old_it_is() -> None:
    said = describe_lag(AT, AT + timedelta(seconds=12))
    assert said == "whose last transaction was at 2026-11-22T10:15:03Z, 12 s ago"
    assert describe_lag(None, AT) == "which has seen no transaction since its start"


async def test_one_that_is_away_is_named() -> None:
    settings = Settings.of({"DATABASE_URL": NOWHERE, "REPORTS_DATABASE_URL": NOWHERE})
    with pytest.raises(DependencyDown, match=r"\(REPORTS_DATABASE_URL\)"):
        async with reports_database(settings, "", lambda _: None):
            pass


async def test_a_primary_needs_no_word(database_url: str) -> None:
    done = await gateway({"DATABASE_URL": database_url}, "report", "usage", "--during", "2026-11", "--json")
    assert (done.status, done.noted) == (0, "")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresPair]:
    folder = tmp_path_factory.mktemp("pair")
    folder.chmod(0o711)
    with postgres_pair(folder / "servers") as made:
        asyncio.run(migrate(made.primary.url))
        yield made


async def write(pair: PostgresPair, calls: int) -> None:
    pool = await open_pool(pair.primary.url, connections_max=1)
    ledger = Ledger(pool, meter=METER, window_s=WINDOW_S)
    user, key = await linked(ledger, f"u{new_id(RANDOM)}")
    await ledger.insert_batch([LedgerEntry.of(call(user, new_id(RANDOM), api_key_id=key)) for _ in range(calls)])
    await pool.close()


async def report(pair: PostgresPair, *what: str) -> Done:
    """With no primary: all is read from the replica."""
    env = {"DATABASE_URL": NOWHERE, "REPORTS_DATABASE_URL": pair.standby.url}
    done = await gateway(env, "report", *what, "--during", "2026-11", "--json")
    assert (done.status, done.error) == (0, "")
    assert "read from a replica, whose last transaction was at " in done.noted
    return done


@pytest.mark.long
async def test_reports_are_read_from_it_and_say_how_old_they_are(pair: PostgresPair) -> None:
    await write(pair, 3)
    await asyncio.to_thread(until_now, pair.has_caught_up)
    assert json.loads((await report(pair, "usage")).out)["totals"]["calls"] == 3
    await report(pair, "meetings")
    await report(pair, "accruals")
    await asyncio.to_thread(ask, pair.standby, "select pg_wal_replay_pause()")
    try:
        await write(pair, 2)
        assert json.loads((await report(pair, "usage")).out)["totals"]["calls"] == 3
    finally:
        await asyncio.to_thread(ask, pair.standby, "select pg_wal_replay_resume()")
    await asyncio.to_thread(until_now, pair.has_caught_up)
    assert json.loads((await report(pair, "usage")).out)["totals"]["calls"] == 5


@pytest.mark.long
async def test_a_report_that_the_replica_cancels_says_what_to_do(pair: PostgresPair) -> None:
    """What its primary has taken away meanwhile, a replica takes from whoever still reads it."""
    await asyncio.to_thread(ask, pair.standby, "alter system set max_standby_streaming_delay = 0")
    await asyncio.to_thread(ask, pair.standby, "select pg_reload_conf()")
    await asyncio.to_thread(ask, pair.primary, "create table read_by_a_report as select 1 as n")
    await asyncio.to_thread(until_now, pair.has_caught_up)
    settings = Settings.of({"DATABASE_URL": NOWHERE, "REPORTS_DATABASE_URL": pair.standby.url})

    async def read() -> None:
        async with reports_database(settings, "", lambda _: None) as pool:
            with translating_errors():
                await pool.fetch("select n, pg_sleep(25) from read_by_a_report")

    reading = asyncio.create_task(read())
    is_read = "select count(*) from pg_stat_activity where query like '%pg_sleep(25)%' and pid <> pg_backend_pid()"
    await asyncio.to_thread(until_now, lambda: ask(pair.standby, is_read))
    await asyncio.to_thread(ask, pair.primary, "drop table read_by_a_report")
    with pytest.raises(DependencyDown, match=r"conflict with recovery \(the replica gave way: ask again"):
        await reading
