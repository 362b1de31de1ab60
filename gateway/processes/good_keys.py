"""Opens what is remembered of good keys, and hears it once before the first call."""

import time
from contextlib import AsyncExitStack
from typing import Final

import structlog

from gateway.access.good_keys import GoodKeys
from gateway.config.key_ring import parse_ring
from gateway.config.settings import Settings
from gateway.kit.errors import DependencyDown
from gateway.stores.redis import open_redis

TIMEOUT_S: Final = 5.0
_log: Final = structlog.get_logger("gateway.proxy")


async def open_good_keys(stack: AsyncExitStack, settings: Settings, redis_url: str) -> GoodKeys | None:
    """None without GATEWAY_SECRETS, or where nothing is to be remembered."""
    secrets, keys = settings.gateway_secrets, settings.keys
    if secrets is None or not keys.remembered_s:
        return None
    redis = open_redis(redis_url, timeout_s=TIMEOUT_S, connections_max=1)
    stack.push_async_callback(redis.aclose)
    ring = parse_ring(secrets.get_secret_value())
    made = GoodKeys(redis, ring, remember_s=keys.remembered_s, keys_max=keys.cache_max, unix_s=time.time)
    stack.push_async_callback(_exchange, made)
    await _exchange(made)
    return made


async def _exchange(good_keys: GoodKeys) -> None:
    """At the start and at the end. Redis may be away: some keys are strangers then, and nothing else is wrong."""
    try:
        await good_keys.exchange()
    except DependencyDown as error:
        _log.warning("good keys not exchanged", what=error.what, detail=error.detail)
