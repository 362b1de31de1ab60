"""Connections to PostgreSQL that work and are wrong, or that nobody answers: the pool lets go of them by itself.

A standby, a demoted primary and `default_transaction_read_only` refuse a write with the same code, 25006; the last is
what a test can switch without a restart, which would cut the connections.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from random import Random
from typing import Any

import asyncpg
import pytest

from gateway.access.identities import KeyOwners
from gateway.kit.errors import DependencyDown, DependencyRefused
from gateway.ledger.rows import LedgerEntry
from gateway.ledger.store import Ledger
from gateway.meetings.call_meetings import CallMeetings
from gateway.openai.objects import UpstreamObjects
from gateway.stores.migrator import migrate
from gateway.stores.postgres import Pool, open_pool
from tests.chaos.stores import Store
from tests.chaos.tcp import Link
from tests.conftest import METER, WINDOW_S, admin
from tests.support.events import call, linked, new_id

RANDOM = Random(5)
BROKEN_S = 20.0
"""More than a look-up may take, less than the timers of statements, which it must not wait for."""


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Store]]:
    """The primary of yesterday and the one of today."""
    folders = [tmp_path_factory.mktemp(name) for name in ("old", "new")]
    for folder in folders:
        folder.chmod(0o711)
    made = [Store(folder, "postgres") for folder in folders]
    for store in made:
        asyncio.run(migrate(store.url))
    yield made[0], made[1]
    for store in made:
        store.stop()


@pytest.fixture
async def link(stores: tuple[Store, Store]) -> AsyncIterator[Link]:
    """Leads to yesterday's."""
    async with Link(stores[0].socket).running() as made:
        yield made


@pytest.fixture
async def pool(stores: tuple[Store, Store], link: Link) -> AsyncIterator[Pool]:
    opened = await open_pool(stores[0].url_through(link.port), connections_min=0, connections_max=3)
    yield opened
    opened.terminate()


async def fill(pool: Pool) -> None:
    """As many connections as the pool may have."""
    held = [await pool.acquire() for _ in range(pool.get_max_size())]
    for connection in held:
        await pool.release(connection)


@pytest.mark.long
async def test_a_server_that_was_demoted(stores: tuple[Store, Store], link: Link, pool: Pool) -> None:
    old, new = stores
    ledger = Ledger(pool, meter=METER, window_s=WINDOW_S)
    there = await open_pool(new.url, connections_max=1)
    entries = []
    for i in range(4):
        user, key = await linked(Ledger(there, meter=METER, window_s=WINDOW_S), f"u{i}")
        entries.append(LedgerEntry.of(call(user, new_id(RANDOM), api_key_id=key)))
    await fill(pool)
    link.lead_to(new.socket)
    await admin(old.url, "alter system set default_transaction_read_only = on", "select pg_reload_conf()")
    try:
        while not await pool.fetchval("select current_setting('transaction_read_only')::bool"):
            await asyncio.sleep(0.01)
        with pytest.raises(DependencyDown, match="read-only"):
            await ledger.insert_batch(entries)
        # All connections at once, not each in its turn.
        outcomes = await asyncio.gather(*(ledger.insert_batch([entry]) for entry in entries))
    finally:
        await admin(old.url, "alter system reset default_transaction_read_only", "select pg_reload_conf()")
    assert sum(outcome.inserted for outcome in outcomes) == len(entries)
    assert await there.fetchval("select count(*) from public.openai_usage") == len(entries)
    await there.close()


@pytest.mark.parametrize("look_up", ["identity", "meeting", "owners"])
async def test_a_call_does_not_wait_for_a_connection_that_was_forgotten(link: Link, pool: Pool, look_up: str) -> None:
    ledger = Ledger(pool, meter=METER, window_s=WINDOW_S)
    ask: dict[str, Any] = {
        "identity": lambda: KeyOwners(ledger.pool).identity(None, "key_1"),
        "meeting": lambda: CallMeetings(ledger.pool).meeting("room"),
        "owners": lambda: UpstreamObjects(ledger.pool).owners(["resp_1"]),
    }
    await fill(pool)
    assert not await ask[look_up]()
    link.forget()
    async with asyncio.timeout(BROKEN_S):
        with pytest.raises(DependencyDown, match="no answer within 2 s"):
            await ask[look_up]()
        for _ in range(pool.get_max_size()):
            assert not await ask[look_up]()


async def test_a_statement_that_ran_into_the_clients_timer_empties_the_pool(link: Link, pool: Pool) -> None:
    await fill(pool)
    link.forget()
    connection = await pool.acquire()
    with pytest.raises(TimeoutError):
        await connection.execute("select 1", timeout=0.2)
    await asyncio.sleep(0.05)  # the pool hears of it in the next turns of the loop
    async with asyncio.timeout(BROKEN_S):
        assert await asyncio.gather(*(pool.fetchval("select 1") for _ in range(2))) == [1, 1]
    connection.terminate()  # else its release waits half a minute for the server to confirm that it has cancelled
    await pool.release(connection)


async def test_a_backend_that_was_ended(stores: tuple[Store, Store], pool: Pool) -> None:
    ledger = Ledger(pool, meter=METER, window_s=WINDOW_S)
    await fill(pool)
    ending = "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()"
    with pytest.raises(asyncpg.PostgresError):
        async with pool.acquire() as connection:
            await connection.execute("select pg_terminate_backend(pg_backend_pid())")
    await admin(stores[0].url, f"{ending} and application_name = 'pailflow-gateway'")
    async with asyncio.timeout(BROKEN_S):
        while True:
            try:
                assert await KeyOwners(ledger.pool).identity(None, "key_1") is None
                break
            except DependencyDown:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "error",
    [ssl.SSLCertVerificationError("certificate has expired"), asyncpg.ClientConfigurationError("no such file")],
)
async def test_an_error_of_connecting_is_never_one_of_the_rows(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Both are ValueErrors, as is asyncpg's refusal of a value: the rows would go into quarantine."""

    async def connect(*_: object, **__: object) -> object:
        raise error

    pool = await open_pool("postgresql://nobody@127.0.0.1:1/nothing", connections_min=0)
    monkeypatch.setattr(asyncpg, "connect", connect)
    with pytest.raises(DependencyDown):
        await Ledger(pool, meter=METER, window_s=WINDOW_S).insert_batch([LedgerEntry.of(call("u", new_id(RANDOM)))])
    with pytest.raises(DependencyRefused, match=str(error)):
        await open_pool("postgresql://nobody@127.0.0.1:1/nothing")
