"""Connections to PostgreSQL: one pool a process, and nothing beside a call makes its look-ups wait."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Final
from uuid import uuid4

import asyncpg
import pytest
from pydantic import SecretStr

from gateway.access.identities import KeyOwners
from gateway.config.settings import Settings
from gateway.processes import keeper, worker
from gateway.processes.proxy_connections import (
    BUDGETS,
    CONNECTIONS_MAX,
    LOOK_UPS,
    ROOMS,
    WEBHOOKS,
    ProxyConnections,
    open_connections,
)
from gateway.stores.postgres import Pool, Table
from gateway.stores.postgres_share import Share
from tests.rooms.rooms_at_work import BOTH
from tests.rooms.test_rotation import spelled
from tests.rooms.test_whole import call, key_with
from tests.support.gateway import Stack
from tests.support.patience import ENDS_S

NAME: Final = "proxy-counted"
_COUNT: Final = """
select split_part(application_name, ' ', 2) as process, count(*)::int as connections from pg_stat_activity
where datname = current_database() and application_name like 'pailflow-gateway%' group by 1
"""


@pytest.fixture
async def connections(database_url: str) -> AsyncIterator[ProxyConnections]:
    async with AsyncExitStack() as stack:
        yield await open_connections(stack, Settings(database_url=SecretStr(database_url)), NAME)


async def hold(share: Share, wanted: int, held: asyncio.Queue[int], free: asyncio.Event) -> None:
    """So many statements that do not end before they may."""

    async def one() -> None:
        async with share.acquire() as connection:
            held.put_nowait(await connection.fetchval("select 1"))
            await free.wait()

    await asyncio.gather(*(one() for _ in range(wanted)))


async def opened(pool: Pool) -> int:
    """Connections that this test's proxy has, as PostgreSQL counts them."""
    return sum(row["connections"] for row in await pool.fetch(_COUNT) if row["process"] == NAME)


async def test_shares_add_up_and_open_only_what_is_used(connections: ProxyConnections, pool: Pool) -> None:
    assert await opened(pool) == 0
    assert await connections.look_ups.fetch("select 1")
    for share in connections:  # one after the other, so one connection serves them all
        assert await share.fetch("select 1")
    assert await opened(pool) == 1


@pytest.mark.parametrize("busy", ["budgets", "webhooks", "rooms", "all"])
async def test_whatever_is_slow_beside_a_call_its_look_up_is_answered(
    connections: ProxyConnections, pool: Pool, monkeypatch: pytest.MonkeyPatch, busy: str
) -> None:
    """A backlog ten times as long as each share: it takes the share and nothing more."""
    sizes = {"budgets": BUDGETS, "webhooks": WEBHOOKS, "rooms": ROOMS}
    busied = sizes if busy == "all" else {busy: sizes[busy]}
    held, free = asyncio.Queue[int](), asyncio.Event()
    backlog = [
        asyncio.create_task(hold(getattr(connections, name), 10 * size, held, free)) for name, size in busied.items()
    ]
    try:
        for _ in range(sum(busied.values())):
            await held.get()
        identities = KeyOwners(connections.look_ups)
        # As many at once as there is room for; each would raise without a connection, and a busy machine has time.
        monkeypatch.setattr("gateway.stores.postgres.LOOK_UP_S", ENDS_S)
        assert await asyncio.gather(*(identities.identity(None, "key_1") for _ in range(20))) == [None] * 20
        assert held.empty()
        assert await opened(pool) <= sum(busied.values()) + LOOK_UPS <= CONNECTIONS_MAX
    finally:
        free.set()
        await asyncio.gather(*backlog)


async def test_look_ups_leave_the_others_theirs(connections: ProxyConnections, pool: Pool) -> None:
    held, free = asyncio.Queue[int](), asyncio.Event()
    backlog = asyncio.create_task(hold(connections.look_ups, 10 * LOOK_UPS, held, free))
    try:
        for _ in range(LOOK_UPS):
            await held.get()
        for share in (connections.budgets, connections.plans, connections.webhooks, connections.rooms):
            assert await asyncio.wait_for(share.fetch("select 1"), ENDS_S)
        assert await opened(pool) <= CONNECTIONS_MAX
    finally:
        free.set()
        await backlog


async def test_a_look_up_that_ran_out_of_time_gives_its_place_back(connections: ProxyConnections) -> None:
    class Slow(Table):
        async def ask(self) -> None:
            await self._look_up("select pg_sleep(30)")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gateway.stores.postgres.LOOK_UP_S", 0.2)
        slow = Slow(connections.look_ups)
        failed = await asyncio.gather(*(slow.ask() for _ in range(3 * LOOK_UPS)), return_exceptions=True)
    assert [type(error).__name__ for error in failed] == ["DependencyDown"] * 3 * LOOK_UPS
    assert await KeyOwners(connections.look_ups).identity(None, "key_1") is None


@pytest.mark.long
def test_processes_of_a_running_gateway_have_one_pool_each(fresh_stack: Stack) -> None:
    fresh_stack.env["ROOMS_KEYS"] = spelled(BOTH)
    fresh_stack.start()
    keys = [key_with(fresh_stack, "rooms.read", "openai.*") for _ in range(3)]
    room, paths = f"/rooms/{uuid4()}", ["/v1/models", "/rooms", "/v1/responses/resp_1"]
    with ThreadPoolExecutor(12) as threads:
        asked = [threads.submit(call, fresh_stack, key, "GET", path) for path in [*paths, room] * 10 for key in keys]
        statuses = {done.result()[0] for done in asked}
    assert statuses == {200, 404}
    found = asyncio.run(counted(fresh_stack.env["DATABASE_URL"]))
    bounds = {"proxy-0": CONNECTIONS_MAX, "keeper": keeper.CONNECTIONS_MAX, "worker": worker.CONNECTIONS_MAX}
    assert {"proxy-0", "worker"} <= found.keys() <= bounds.keys()  # nothing connects beside the pools
    for name, connections in found.items():
        assert connections <= bounds[name], (name, connections)


async def counted(database_url: str) -> dict[str, int]:
    """Connections of this gateway by the name of their process."""
    connection = await asyncpg.connect(database_url)
    try:
        return {row["process"]: row["connections"] for row in await connection.fetch(_COUNT)}
    finally:
        await connection.close()
