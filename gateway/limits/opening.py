"""Opens the limits in Redis from settings; the caller's stack closes them."""

from contextlib import AsyncExitStack
from typing import Final

from gateway.config.settings import Settings, require_values
from gateway.limits.counters import LIMITS_REDIS, REDIS, Limits
from gateway.stores.redis import open_redis

LIMITS_TIMEOUT_S: Final = 1.0
"""Seconds that Redis has for the limits of a call."""
HOLD_MARGIN_S: Final = 600.0
"""Seconds that a swept call has to reach the ledger before its hold ends by itself."""


def open_limits(stack: AsyncExitStack, settings: Settings) -> Limits:
    """Limits in their Redis, closed by the stack. Their own connections: a call must not queue behind a long read."""
    own = settings.limits_redis_url
    url = require_values(settings, "redis_url")["redis_url"] if own is None else own.get_secret_value()
    variable = "REDIS_URL" if own is None else "LIMITS_REDIS_URL"
    redis = open_redis(url, variable=variable, timeout_s=LIMITS_TIMEOUT_S, connections_max=4)
    stack.push_async_callback(redis.aclose)
    # A sweep settles a call after this at the latest; then the ledger has it, and the hold may go.
    name = REDIS if own is None else LIMITS_REDIS
    return Limits(redis, hold_s=settings.journal.open_max_s + HOLD_MARGIN_S, name=name)
