"""Opens the ledger and the stream from settings; the caller's stack closes them."""

from contextlib import AsyncExitStack

from gateway.config.settings import Settings
from gateway.ledger.store import Ledger
from gateway.ledger.stream import Buffer
from gateway.stores.postgres import open_pool
from gateway.stores.redis import open_redis


async def open_ledger(stack: AsyncExitStack, settings: Settings, dsn: str, *, connections: int) -> Ledger:
    """A ledger over a pool that the stack closes; a database that is away is met at the first question, not here."""
    pool = await open_pool(dsn, connections_min=0, connections_max=connections)
    stack.push_async_callback(pool.close)
    return Ledger(pool, meter=settings.billing.meter_event_name, window_s=settings.billing.window_s)


def open_buffer(stack: AsyncExitStack, settings: Settings, url: str) -> Buffer:
    """The Redis side, closed by the stack."""
    redis = open_redis(url)
    stack.push_async_callback(redis.aclose)
    return Buffer(redis, stream=settings.flush.stream)
