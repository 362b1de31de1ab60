"""A database whose own time a test moves: `now()` and `clock_timestamp()` say what was set last, in every session.

What PostgreSQL calls the present is the present of the books too: who pays today, what is booked late, which credit
there was. A test in moved time needs a database that lives in it. So the two functions are put in the place of
PostgreSQL's own before anything is migrated, and every default, trigger and statement means them.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg
import pytest

from gateway.stores.migrator import migrate
from tests.conftest import admin
from tests.support.servers import on_database
from tests.support.stripe_shop import START

TEMPLATE: Final = "moved_template"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
# A sequence, because what it holds is seen at once and in transactions that have begun, like a clock.
_INSTALL: Final = """
create schema moved;
create sequence moved.us;
grant usage on schema moved to public;
grant usage on sequence moved.us to public;
alter function pg_catalog.now() rename to really_now;
alter function pg_catalog.clock_timestamp() rename to really_clock_timestamp;
create function pg_catalog.now() returns timestamptz language sql stable as $$
  select timestamptz 'epoch' + pg_sequence_last_value('moved.us') * interval '1 microsecond'
$$;
create function pg_catalog.clock_timestamp() returns timestamptz language sql volatile as $$
  select timestamptz 'epoch' + pg_sequence_last_value('moved.us') * interval '1 microsecond'
$$;
"""


@pytest.fixture(scope="session")
def moved_template(postgres_dsn: str) -> str:
    """The name of a migrated database in a time of its own, that of a shop's beginning; to be cloned."""
    asyncio.run(admin(postgres_dsn, f"create database {TEMPLATE}"))
    asyncio.run(migrate_moved(on_database(postgres_dsn, TEMPLATE), datetime.fromtimestamp(START, UTC)))
    return TEMPLATE


async def migrate_moved(dsn: str, at: datetime) -> None:
    """Gives an empty database a time of its own, and every migration. As its superuser."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(_INSTALL)
        await set_now(connection, at)
    finally:
        await connection.close()
    await migrate(dsn)


async def set_now(connection: Any, at: datetime) -> None:
    """Moves the database's time."""
    await connection.execute("select setval('moved.us', $1)", (at - _EPOCH) // _MICROSECOND)
