"""Who knows of hosts, built from settings; the caller's stack closes what is opened."""

from contextlib import AsyncExitStack
from typing import Final

from gateway.config.settings import Settings
from gateway.hosts.open_calls import OpenCalls
from gateway.ledger.opening import build_signer
from gateway.stores.redis import open_redis

CONNECTIONS_MAX: Final = 2


def open_calls_in_flight(stack: AsyncExitStack, settings: Settings, url: str) -> OpenCalls:
    """The Redis side, closed by the stack."""
    redis = open_redis(url, connections_max=CONNECTIONS_MAX)
    stack.push_async_callback(redis.aclose)
    return OpenCalls(redis, signer=build_signer(settings))


def lease_s(settings: Settings) -> float:
    """Seconds for which a host counts as alive after it was last seen: longer than its longest call."""
    return settings.journal.open_max_s + settings.hosts.grace_s
