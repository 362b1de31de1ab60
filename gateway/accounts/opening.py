"""Opens the stream of changes of keys from settings; the caller's stack closes it."""

from contextlib import AsyncExitStack

from gateway.accounts.key_changes import KeyChanges
from gateway.stores.redis import open_redis


def open_key_changes(stack: AsyncExitStack, url: str, *, timeout_s: float = 5.0) -> KeyChanges:
    """With connections of its own, because one read waits nearly always."""
    redis = open_redis(url, timeout_s=timeout_s, connections_max=2)
    stack.push_async_callback(redis.aclose)
    return KeyChanges(redis)
