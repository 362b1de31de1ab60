"""Builds the index of a migration `…_concurrently`, while everybody goes on writing to its table.

PostgreSQL does that in no transaction, so what breaks off leaves an index that is not valid; the next run replaces it.
"""

import asyncio
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import asyncpg

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
else:
    Connection = Any

LOOK_S: Final = 0.5
"""Seconds between two looks at an index that another migrator is building."""
_NAME: Final = re.compile(r"^create index if not exists (\w+) on ", re.MULTILINE)
# Of the index: whether it may be used, and whether somebody is at work on it.
_STATE: Final = """
select i.indisvalid as is_valid, exists (
  select from pg_stat_progress_create_index p where p.index_relid = i.indexrelid) as is_being_built
from pg_index i where i.indexrelid = to_regclass('public.' || $1)
"""


def name_of(sql: str) -> str:
    """The index that such a file makes."""
    (name,) = _NAME.findall(sql)
    return str(name)


async def build_index(connection: Connection, sql: str) -> None:
    """Returns when the index is valid, whoever has built it. Waits for every transaction that has begun before.

    Raises what asyncpg raises.
    """
    name = name_of(sql)
    # It may take hours, and nobody queues behind it: its lock is one that readers and writers do not meet.
    await connection.execute("set statement_timeout = 0; set lock_timeout = 0")
    while (state := await connection.fetchrow(_STATE, name)) is None or not state["is_valid"]:
        if state is None:
            # Another migrator was first, or the two have waited for each other.
            with suppress(asyncpg.DuplicateTableError, asyncpg.DeadlockDetectedError):
                await connection.execute(sql.replace("create index if not exists", "create index concurrently", 1))
        elif state["is_being_built"]:
            await asyncio.sleep(LOOK_S)
        else:
            with suppress(asyncpg.DeadlockDetectedError):
                await connection.execute(f"drop index concurrently if exists public.{name}")
    await connection.execute("reset statement_timeout; reset lock_timeout")
