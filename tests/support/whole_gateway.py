"""A whole running gateway for the tests of a module: real processes, the sandbox behind them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final
from uuid import uuid4

import asyncpg
import pytest

from gateway.config.database_logins import PROCESSES, setting
from gateway.embedded import Embedded
from gateway.stores.process_roles import make_logins
from tests.conftest import admin
from tests.support.gateway import PATIENT, Stack, stack
from tests.support.hostile import Hostile
from tests.support.servers import free_port, on_database

DAILY_SECRET: Final = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
"""What webhooks are signed with; Daily.co's docs have a vector for it."""
STRIPE_SECRETS: Final = ("whsec_of_the_old_endpoint", "whsec_of_the_new_endpoint")
"""What Stripe's webhooks are signed with, while the secret is rolled."""


@pytest.fixture(scope="module")
def module_database(postgres_dsn: str, template: str) -> Iterator[str]:
    """A migrated database that the tests of one module share."""
    name = f"module_{uuid4().hex}"
    asyncio.run(admin(postgres_dsn, f"create database {name} template {template} strategy file_copy"))
    yield on_database(postgres_dsn, name)
    asyncio.run(admin(postgres_dsn, f"drop database {name} with (force)"))


@pytest.fixture(scope="session")
def running(
    embedded: Embedded, postgres_dsn: str, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """`gateway serve` and the sandbox, for all modules: starting one takes seconds. So a test must not count what
    others have left there.
    """
    name, folder = f"running_{uuid4().hex}", tmp_path_factory.mktemp("stack")
    asyncio.run(admin(postgres_dsn, f"create database {name} template {template} strategy file_copy"))
    database = on_database(postgres_dsn, name)
    secrets = {"DAILY_WEBHOOK_SECRET": DAILY_SECRET, "STRIPE_WEBHOOK_SECRET": ",".join(STRIPE_SECRETS)}
    environ = secrets | asyncio.run(own_logins(database))
    # A database of its own: its worker would recount, and drop, what other tests count.
    with stack(folder, database, embedded.redis_url.replace("db=0", "db=1"), **environ) as made:
        made.start()
        yield made


@pytest.fixture(autouse=True)
def faults_end_with_their_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test made the stand-ins of `running` do must not reach the next one, in whatever order they run."""
    shared: Stack | None = request.getfixturevalue("running") if "running" in request.fixturenames else None
    yield
    if shared is not None:
        shared.calm()


@pytest.fixture
def beside_running(running: Stack, tmp_path: Path) -> Iterator[Stack]:
    """Not started, over the stores, the stand-ins and the key of `running`: for a proxy of the test's own process, or
    whatever else needs no database to itself.
    """
    made = running.beside(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def fresh_stack(redis_url: str, database_url: str, tmp_path: Path) -> Iterator[Stack]:
    """A stack of this test's own, not started: for tests that kill it."""
    with stack(tmp_path, database_url, redis_url, FLUSH__STREAM=f"usage-{uuid4().hex}") as made:
        yield made


async def own_logins(database: str) -> dict[str, str]:
    """For an environment: each process works on this database under a login that may do nothing but its own work."""
    logins = await make_logins(database, PROCESSES)
    return {setting(process).upper(): logins[process] for process in PROCESSES}


async def settled_rows(database_url: str, count: int, *, within_s: float = 90.0) -> list[asyncpg.Record]:
    """Every row of the ledger, oldest first, once there are `count`; AssertionError when there are more or too few."""
    connection = await asyncpg.connect(database_url)
    try:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within_s
        while True:
            rows = await connection.fetch("select * from openai_usage order by id")
            if len(rows) >= count or loop.time() > deadline:
                assert len(rows) == count, [(row["endpoint"], row["evidence"]) for row in rows[:20]]
                return list(rows)
            await asyncio.sleep(0.05)
    finally:
        await connection.close()


async def row_of(running: Stack, event_id: str, *, within_s: float = 90.0) -> asyncpg.Record:
    """The ledger row of one call, once it is there; AssertionError when it does not come."""
    connection = await asyncpg.connect(running.env["DATABASE_URL"])
    try:
        for _ in range(int(within_s / 0.05)):
            row = await connection.fetchrow("select * from openai_usage where id = $1::uuid", event_id)
            if row is not None:
                return row
            await asyncio.sleep(0.05)
    finally:
        await connection.close()
    raise AssertionError(f"no row for {event_id}")


@pytest.fixture(scope="session")
def before_hostile(running: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, int]]:
    """A gateway beside `running`, and the port at which it expects OpenAI."""
    made, port = running.beside(tmp_path_factory.mktemp("hostile")), free_port()
    made.env["OPENAI_BASE_URL"] = f"http://127.0.0.1:{port}/v1"
    made.env["UPSTREAM__READ_S"] = "60"
    try:
        made.run("serve", "--no-background", module=PATIENT).wait_for("serving http")
        yield made, port
    finally:
        made.stop()


@pytest.fixture
async def hostile(before_hostile: tuple[Stack, int]) -> AsyncIterator[Hostile]:
    gateway, port = before_hostile
    made = Hostile(gateway)
    listening = await asyncio.start_server(made.serve, "127.0.0.1", port)
    try:
        yield made
    finally:
        listening.close()
        for writer in made.writers:  # the gateway must not keep a connection to a server that is gone
            writer.transport.abort()
        await asyncio.sleep(0.1)
