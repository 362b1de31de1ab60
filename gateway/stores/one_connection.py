"""A database connection for one command, closed at its end. Holds no query."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from gateway.config.settings import Settings
from gateway.kit.errors import ConfigError
from gateway.stores.postgres import Pool, open_pool

STATEMENT_S: Final = 30.0
LONG_STATEMENT_S: Final = 3600.0
"""Seconds that one question may take which reads a month or more of a large ledger."""


@asynccontextmanager
async def database(settings: Settings, why: str, *, statement_s: float = STATEMENT_S) -> AsyncIterator[Pool]:
    """A pool of one connection. `why` ends the sentence of the ConfigError that names a missing DATABASE_URL.

    Raises DependencyDown("postgres") when it cannot be connected to.
    """
    if settings.database_url is None:
        raise ConfigError(f"DATABASE_URL is not set: {why}")
    dsn = settings.database_url.get_secret_value()
    pool = await open_pool(dsn, connections_max=1, statement_timeout_s=statement_s)
    try:
        yield pool
    finally:
        await pool.close()
