"""Opens the one pool of a process from settings; the caller's stack closes it."""

from contextlib import AsyncExitStack

from gateway.config.settings import Settings, require_values
from gateway.stores.postgres import Pool, open_pool


async def open_process_pool(stack: AsyncExitStack, settings: Settings, process: str, connections_max: int) -> Pool:
    """A pool under the name of this process; a database that is away is met at the first question, not here."""
    dsn = require_values(settings, "database_url")["database_url"]
    pool = await open_pool(dsn, connections_min=0, connections_max=connections_max, process=process)
    stack.push_async_callback(pool.close)
    return pool
