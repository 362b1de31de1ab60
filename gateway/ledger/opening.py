"""The ledger and the stream under the settings; the caller's stack closes what is opened."""

from contextlib import AsyncExitStack

from gateway.config.settings import Settings
from gateway.ledger.store import Ledger
from gateway.ledger.stream import Buffer
from gateway.stores.postgres import Pool
from gateway.stores.redis import open_redis


def build_ledger(settings: Settings, pool: Pool) -> Ledger:
    """A ledger over this pool."""
    return Ledger(pool, meter=settings.billing.meter_event_name, window_s=settings.billing.window_s)


def open_buffer(stack: AsyncExitStack, settings: Settings, url: str) -> Buffer:
    """The Redis side, closed by the stack."""
    redis = open_redis(url)
    stack.push_async_callback(redis.aclose)
    return Buffer(redis, stream=settings.flush.stream)
