"""How full each Redis is and of what, for /metrics and /readyz: looked at by one worker at a time."""

from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from typing import Final

from redis.exceptions import NoPermissionError, RedisError

from gateway.config.settings import Settings, require_values
from gateway.kit.metrics import Sample
from gateway.limits.counters import LIMITS_REDIS, REDIS
from gateway.stores.redis import describe_outage, open_redis
from gateway.stores.redis_memory import MemoryWalk, RedisMemory

LABELS: Final = {REDIS: "main", LIMITS_REDIS: "limits"}


def open_walks(stack: AsyncExitStack, settings: Settings, name: str) -> dict[str, MemoryWalk]:
    """A walk through each Redis, by what it is called; closed by the stack. `name`: this process's."""
    urls = {REDIS: require_values(settings, "redis_url")["redis_url"]}
    if settings.limits_redis_url is not None:
        urls[LIMITS_REDIS] = settings.limits_redis_url.get_secret_value()
    walks = {}
    for called, url in urls.items():
        redis = open_redis(url, connections_max=1)
        stack.push_async_callback(redis.aclose)
        walks[called] = MemoryWalk(redis, stream=settings.flush.stream, name=name)
    return walks


class RedisFigures:
    """What a worker knows of the memory of each Redis."""

    def __init__(self, walks: Mapping[str, MemoryWalk]) -> None:
        self._walks: Final = walks
        self._found: Final[dict[str, RedisMemory]] = {}

    async def look(self) -> None:
        """Looks at those that nobody else looks at. Raises DependencyDown; then the last figures stay."""
        for called, walk in self._walks.items():
            try:
                found = await walk.look() if await walk.is_mine() else None
            except NoPermissionError:
                found = None  # a login with fewer rights than docs/operations.md gives it: there are no figures then
            except (RedisError, OSError, RuntimeError) as error:  # RuntimeError: uvloop, of a connection half-closed
                raise describe_outage(called, error, f"{type(error).__name__}: {error}") from error
            if found is None:
                self._found.pop(called, None)
            else:
                self._found[called] = found

    @property
    def full(self) -> str | None:
        """Which Redis has no room, in words; None while each has."""
        return next((f"{called}, which is full" for called, found in self._found.items() if found.is_full), None)

    def samples(self) -> Iterable[Sample]:
        """What the last look has found."""
        for called, found in self._found.items():
            label = LABELS[called]
            yield Sample("gateway_redis_used_bytes", (label,), found.used)
            yield Sample("gateway_redis_limit_bytes", (label,), found.limit)
            for purpose, size in found.by_purpose.items():
                yield Sample("gateway_redis_memory_bytes", (label, purpose), size)
