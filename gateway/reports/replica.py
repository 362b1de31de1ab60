"""Where reports are read: REPORTS_DATABASE_URL, which may be a replica, else DATABASE_URL.

A replica is behind its primary, so whoever reads a report of one is told how far it is.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final

import asyncpg

from gateway.config.database_logins import with_own_login
from gateway.config.settings import Settings
from gateway.kit.errors import DependencyDown
from gateway.kit.instants import rfc3339
from gateway.stores.one_connection import database
from gateway.stores.postgres import Pool, translating_errors

Say = Callable[[str], object]
# When the last transaction that it has was committed; null where it has had none yet.
_REPLAYED: Final = """
select pg_is_in_recovery() as is_replica, pg_last_xact_replay_timestamp() as at, clock_timestamp() as now
"""


@asynccontextmanager
async def reports_database(settings: Settings, why: str, say: Say) -> AsyncIterator[Pool]:
    """A pool of one connection, as `one_connection.database`; `say` is told when it leads to a replica.

    Raises DependencyDown, with what to do where a replica has given way to its primary.
    """
    try:
        async with database(with_own_login(settings, "reports"), why) as pool:
            with translating_errors():
                found = await pool.fetchrow(_REPLAYED)
            assert found is not None
            if found["is_replica"]:
                say(f"read from a replica, {describe_lag(found['at'], found['now'])}")
            yield pool
    except DependencyDown as error:
        if isinstance(error.__cause__, asyncpg.SerializationError):
            fix = "the replica gave way: ask again, or raise its max_standby_streaming_delay"
            raise DependencyDown(error.what, f"{error.detail} ({fix})") from error
        if settings.reports_database_url is not None:
            raise type(error)(error.what, f"{error.detail} (REPORTS_DATABASE_URL)") from error
        raise


def describe_lag(at: datetime | None, now: datetime) -> str:
    """How old its data are, at the most: a primary without a change looks like a replica that is behind."""
    if at is None:
        return "which has seen no transaction since its start"
    return f"whose last transaction was at {rfc3339(at.replace(microsecond=0))}, {(now - at).total_seconds():.0f} s ago"
