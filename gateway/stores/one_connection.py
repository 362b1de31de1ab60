"""A database connection for one command, closed at its end. Holds no query."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.config.settings import Settings
from gateway.kit.errors import ConfigError
from gateway.stores.postgres import Pool, open_pool


@asynccontextmanager
async def database(settings: Settings, why: str) -> AsyncIterator[Pool]:
    """A pool of one connection. `why` ends the sentence of the ConfigError that names a missing DATABASE_URL.

    Raises DependencyDown("postgres") when it cannot be connected to.
    """
    if settings.database_url is None:
        raise ConfigError(f"DATABASE_URL is not set: {why}")
    pool = await open_pool(settings.database_url.get_secret_value(), connections_max=1)
    try:
        yield pool
    finally:
        await pool.close()
