"""Fixtures that every test may use: a migrated database of its own, an empty Valkey, and the stores over them."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import asyncpg
import pytest
import structlog
from hypothesis import HealthCheck, settings

from gateway.embedded import Embedded, ephemeral
from gateway.ledger.store import Ledger
from gateway.ledger.stream import Buffer
from gateway.stores.migrator import migrate
from gateway.stores.postgres import Pool, open_pool
from gateway.stores.redis import open_redis
from tests.support.servers import memory_folder, on_database

pytest_plugins = [
    "tests.support.collecting",
    "tests.support.moved_database",
    "tests.support.price_book",
    "tests.support.whole_gateway",
]
TEMPLATE = "gateway_template"
METER = "openai_usage_micro_usd"
WINDOW_S = 3600


def pytest_configure() -> None:
    """Before any test is imported."""
    # What a background job of a shell inherits must not reach the processes that tests interrupt.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # No example fails for being slow: the machine may be busy.
    settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("unhurried")


@pytest.fixture(autouse=True)
def plain_logging() -> Iterator[None]:
    """A command run in this process sets logging up on a standard error that is captured for one test only."""
    yield
    structlog.reset_defaults()


async def admin(dsn: str, *statements: str) -> None:
    """Runs statements that may not stand in a transaction (CREATE DATABASE and the like)."""
    connection = await asyncpg.connect(dsn)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def embedded() -> Iterator[Embedded]:
    """A PostgreSQL and a Valkey without durability: tests kill our own processes, not these."""
    with ephemeral(parent=memory_folder()) as running:
        yield running


@pytest.fixture(scope="session")
def postgres_dsn(embedded: Embedded) -> str:
    """The PostgreSQL server, as its superuser."""
    return embedded.database_url


@pytest.fixture(scope="session")
def template(postgres_dsn: str) -> str:
    """The name of a database with every migration applied, to be cloned."""
    asyncio.run(admin(postgres_dsn, f"create database {TEMPLATE}"))
    asyncio.run(migrate(on_database(postgres_dsn, TEMPLATE)))
    return TEMPLATE


@pytest.fixture
async def empty_database_url(postgres_dsn: str) -> AsyncIterator[str]:
    """A database with nothing in it."""
    name = f"empty_{uuid4().hex}"
    await admin(postgres_dsn, f"create database {name}")
    yield on_database(postgres_dsn, name)
    await admin(postgres_dsn, f"drop database {name} with (force)")


@pytest.fixture
async def database_url(postgres_dsn: str, template: str) -> AsyncIterator[str]:
    """A migrated database of this test's own. (Copying files is the cheap way while nothing is synced to disk.)"""
    name = f"test_{uuid4().hex}"
    connection = await asyncpg.connect(postgres_dsn)
    await connection.execute(f"create database {name} template {template} strategy file_copy")
    yield on_database(postgres_dsn, name)
    if connection.is_closed():  # by a test that ends everybody's
        connection = await asyncpg.connect(postgres_dsn)
    await connection.execute(f"drop database {name} with (force)")
    await connection.close()


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    """Connections to `database_url`."""
    opened = await open_pool(database_url)
    yield opened
    await opened.close()


@pytest.fixture
def ledger(pool: Pool) -> Ledger:
    """The ledger in `database_url`."""
    return Ledger(pool, meter=METER, window_s=WINDOW_S)


@pytest.fixture
async def redis_url(embedded: Embedded) -> str:
    """An empty Valkey."""
    redis = open_redis(embedded.redis_url)
    await redis.flushdb()
    await redis.aclose()
    return embedded.redis_url


@pytest.fixture
async def buffer(redis_url: str) -> AsyncIterator[Buffer]:
    """The stream on `redis_url`."""
    redis = open_redis(redis_url)
    opened = Buffer(redis, stream="gateway:usage")
    await opened.ensure_group()
    yield opened
    await redis.aclose()
