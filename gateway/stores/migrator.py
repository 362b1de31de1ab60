"""Applies migrations/*.sql to PostgreSQL, in order, each in one transaction. Must not know what is in them.

Recorded where Supabase's own tool records them (Supabase's docs), so that either may go on where the
other stopped. Safe to run twice and from two places at once: each file is applied under a lock that ends with
its transaction, which also works through a transaction pooler.

Whoever uses the database goes on using it. A file asks for a table for a moment only, again and again, because all
others queue behind one who waits for a strong lock. A file `…_in_batches` is applied in as many transactions as it
takes; the index of a file `…_concurrently` is built in none.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from importlib import resources
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import asyncpg

import migrations
from gateway.config.dsn import read_dsn
from gateway.kit.errors import Expected
from gateway.stores.index_builder import build_index
from gateway.stores.postgres import translate, translating_errors

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
else:
    Connection = Any

LOCK: Final = 7_446_195_881_204_317_001
"""Key of the advisory lock that migrators of one database share; any number, as long as it stays."""
LOCK_WAIT_MS: Final = 400
"""Milliseconds for which a migration may wait in the queue for a table that others are using before it steps aside;
less than PostgreSQL's `deadlock_timeout`, so that it is never a writer that gives way."""
LOCK_PAUSE_S: Final = 0.5
"""Seconds before it asks again."""
LOCK_WAIT_S: Final = 900
"""Seconds after which it gives up, and the file stays rolled back."""
BATCH_ROWS: Final = 2000
"""Rows that one transaction of a file `…_in_batches` may change: short of a second, also on a slow disk."""
WORD_EVERY_S: Final = 5.0
"""Seconds between two words about how far such a file has come."""

_Said = Callable[[str], object]

# Makes the place where versions are recorded, as Supabase's tool does.
RECORD_TABLE: Final = """
create schema if not exists supabase_migrations;
create table if not exists supabase_migrations.schema_migrations (version text primary key);
alter table supabase_migrations.schema_migrations add column if not exists statements text[];
alter table supabase_migrations.schema_migrations add column if not exists name text;
"""
# Whether versions have ever been recorded here.
RECORDS_EXIST: Final = "select to_regclass('supabase_migrations.schema_migrations') is not null"
# Every recorded version; Supabase's tool records a name too, others may not.
RECORDED: Final = "select version, name from supabase_migrations.schema_migrations"
# How much the last batch did; a file `…_in_batches` sets it.
BATCH_DONE: Final = "select current_setting('gateway.batch_done')::bigint"
# Records one version as applied.
RECORD: Final = """
insert into supabase_migrations.schema_migrations (version, name, statements) values ($1, $2, $3)
"""


class Migration(NamedTuple):
    """One file, `<YYYYMMDDHHmmss>_<name>.sql`."""

    version: str
    name: str
    sql: str


class MigrationReport(NamedTuple):
    """What a run did: the files it applied, how many were there before, and what PostgreSQL had to say."""

    applied: list[Migration]
    already: int
    notices: list[str]


class MigrationFailed(Expected):
    """A file was refused by the database and rolled back whole; those before it stay applied."""


class VersionTaken(Expected):
    """Two migrations have one version: of two files, or of a file and of what is recorded in the database."""


def load() -> list[Migration]:
    """Every migration that ships with this version, oldest first. Raises VersionTaken."""
    found = []
    for item in resources.files(migrations).iterdir():
        stem, dot, ending = item.name.rpartition(".")
        if dot and ending == "sql":
            version, _, name = stem.partition("_")
            found.append(Migration(version, name, item.read_text("utf-8")))
    return in_order(found)


def in_order(files: Sequence[Migration]) -> list[Migration]:
    """Oldest first. Raises VersionTaken when two have the same version: only one of them would ever be applied."""
    found = sorted(files)
    for one, next_one in pairwise(found):
        if one.version == next_one.version:
            raise VersionTaken(
                f"the migrations {one.version}_{one.name} and {next_one.version}_{next_one.name} "
                "have the same version. Give the later one a new version"
            )
    return found


async def pending(connection: Connection, known: Sequence[Migration] | None = None) -> list[Migration]:
    """Those not yet recorded in this database, oldest first. Raises VersionTaken when a version is recorded under
    another name: then it is some other migration that was applied."""
    done = await _read_recorded(connection)
    missing = []
    for each in load() if known is None else in_order(known):
        if each.version not in done:
            missing.append(each)
        elif (name := done[each.version]) not in (None, each.name):
            raise VersionTaken(
                f"the database has the migration {each.version}_{name} where this version has "
                f"{each.version}_{each.name}: it was migrated by something else, and {each.name} was not applied. "
                "Apply it by hand and correct supabase_migrations.schema_migrations, or use another database"
            )
    return missing


async def _read_recorded(connection: Connection) -> dict[str, str | None]:
    """Recorded versions, each with its name where there is one."""
    if not await connection.fetchval(RECORDS_EXIST):
        return {}
    return {row["version"]: row["name"] for row in await connection.fetch(RECORDED)}


class Versions(NamedTuple):
    """This version's migrations against those recorded in a database, by `<version>_<name>`."""

    behind: list[str]
    """Not applied yet."""
    ahead: list[str]
    """Applied by a newer gateway, or by somebody else's tool."""


async def compare(connection: Connection) -> Versions:
    """Reads only. Raises VersionTaken."""
    known = load()
    behind = [f"{each.version}_{each.name}" for each in await pending(connection, known)]
    newest = known[-1].version
    return Versions(behind, sorted(version for version in await _read_recorded(connection) if version > newest))


def _ignore_progress(_text: str) -> None:
    return None


async def migrate(
    dsn: str,
    *,
    connect_timeout_s: float = 10.0,
    known: Sequence[Migration] | None = None,
    said: _Said = _ignore_progress,
) -> MigrationReport:
    """Brings a database up to date. `said` is told what takes long.

    Raises DependencyDown("postgres"), MigrationFailed or VersionTaken.
    """
    notices: list[str] = []
    everything = load() if known is None else in_order(known)
    found = read_dsn(dsn)
    with translating_errors():
        connection = await asyncpg.connect(
            found.url, **found.tls, timeout=found.connect_timeout_s or connect_timeout_s, statement_cache_size=0
        )
    try:
        connection.add_log_listener(lambda _, message: notices.append(str(message)))
        applied = [each for each in everything if await _apply(connection, each, said)]
    finally:
        await connection.close()
    return MigrationReport(applied, len(everything) - len(applied), notices)


async def _apply(connection: Connection, migration: Migration, said: _Said) -> bool:
    """Applies one file unless it is recorded already. Whether it was applied now."""
    try:
        if migration.name.endswith("_concurrently"):
            return await _build(connection, migration, said)
        if not migration.name.endswith("_in_batches"):
            return await _in_its_turn(connection, migration, said, batch_rows=None) is not None
        total, next_word_at = 0, time.monotonic() + WORD_EVERY_S
        while (done := await _in_its_turn(connection, migration, said, batch_rows=BATCH_ROWS)) is not None:
            total += done
            if not done:
                return True
            if time.monotonic() >= next_word_at:
                said(f"{migration.version}_{migration.name}: {total} done, and more to do")
                next_word_at = time.monotonic() + WORD_EVERY_S
    except asyncpg.PostgresConnectionError as error:
        raise translate(error) from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise MigrationFailed(f"{migration.version}_{migration.name}: {error}") from error
    return False


async def _build(connection: Connection, migration: Migration, said: _Said) -> bool:
    """Builds the index of one file, and then records it."""
    if await pending(connection, [migration]):
        said(f"{migration.version}_{migration.name}: builds an index, beside whoever is using its table")
        await build_index(connection, migration.sql)
    return await _in_its_turn(connection, migration, said, batch_rows=None) is not None


async def _in_its_turn(
    connection: Connection, migration: Migration, said: _Said, *, batch_rows: int | None
) -> int | None:
    """Runs one file, or one batch of it, as soon as nobody holds the tables it needs. As _run_file."""
    gives_up_at = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            return await _run_file(connection, migration, batch_rows=batch_rows)
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            if time.monotonic() >= gives_up_at:
                raise
            said(f"{migration.version}_{migration.name}: waits for who is using its tables")
        await asyncio.sleep(LOCK_PAUSE_S)


async def _run_file(connection: Connection, migration: Migration, *, batch_rows: int | None) -> int | None:
    """One transaction: what it did, where the file says so, else 0; None when the file is recorded already. A file in
    batches is recorded by the batch that finds nothing to do."""
    async with connection.transaction():
        await connection.execute("set local statement_timeout = 0")
        await connection.execute("set local client_min_messages = notice")
        await connection.execute("select pg_advisory_xact_lock($1)", LOCK)
        if not await connection.fetchval(RECORDS_EXIST):
            await connection.execute(RECORD_TABLE)
        if not await pending(connection, [migration]):
            return None
        await connection.execute(f"set local lock_timeout = {LOCK_WAIT_MS}")
        if batch_rows is not None:
            await connection.execute(f"set local gateway.batch_rows = {batch_rows}")
        if not migration.name.endswith("_concurrently"):
            await connection.execute(migration.sql)
        done = 0 if batch_rows is None else int(await connection.fetchval(BATCH_DONE))
        if not done:
            await connection.execute(RECORD, migration.version, migration.name, [migration.sql])
        return done
