"""Which keys and users a command has changed, told over Redis to every proxy that remembers them.

A word here lets nobody in: it only makes a proxy look at PostgreSQL again. So whoever may write to this Redis can keep
a proxy from hearing of a revocation, which then takes `keys.fresh_s` as without it, and no more. No secret is in here.
"""

from collections.abc import Awaitable, Iterable
from typing import Any, Final, NamedTuple, cast

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from gateway.kit.errors import DependencyDown, DependencyRefused

STREAM: Final = "keys:changes"
PROXIES: Final = "keys:proxies"
"""The proxies that follow, by the second in which they were last heard of, by Redis's clock."""
CONFIRMED: Final = "keys:confirmed:"
"""With the id of an entry: the proxies that have acted on it."""
CONFIRMED_S: Final = 60
KEPT_MAX: Final = 10_000
"""Entries kept, about: more than come in the time after which a proxy has looked at every key again."""
READ_MAX: Final = 100
KNOWN_S: Final = 3600
"""Seconds for which a proxy that is not heard of any more is still named: it may run without reaching Redis."""
_HERE: Final = "redis.call('ZADD', KEYS[1], redis.call('TIME')[1], ARGV[1]) return 1"


class AnnouncedChange(NamedTuple):
    """One entry: what one command has changed."""

    entry_id: bytes
    keys: frozenset[str]
    """Unkey's ids."""
    users: frozenset[str]
    """Our ids."""


class KeyChanges:
    """The stream of changes over one Redis. Every method raises DependencyDown("redis")."""

    def __init__(self, redis: "Redis") -> None:
        self._redis: Final = redis

    async def publish(self, keys: Iterable[str], users: Iterable[str]) -> bytes:
        """Tells of a change that is in PostgreSQL already; the id of its entry."""
        fields = {"keys": " ".join(keys), "users": " ".join(users)}
        added = self._redis.xadd(STREAM, cast("Any", fields), maxlen=KEPT_MAX, approximate=True)
        return cast("bytes", await _asked(added))

    async def confirmed(self, entry_id: bytes) -> set[str]:
        """The proxies that have acted on this entry."""
        names = await _asked(self._redis.smembers(CONFIRMED + entry_id.decode()))
        return {name.decode("utf-8", "replace") for name in names}

    async def proxies(self) -> dict[str, float]:
        """The proxies that followed within the last hour, with the seconds since each was heard of."""
        seconds, _ = await _asked(self._redis.time())
        await _asked(self._redis.zremrangebyscore(PROXIES, "-inf", int(seconds) - KNOWN_S))
        found = await _asked(self._redis.zrange(PROXIES, 0, -1, withscores=True))
        return {name.decode("utf-8", "replace"): max(0.0, int(seconds) - score) for name, score in found}

    async def newest(self) -> bytes:
        """The id of the last entry."""
        found = await _asked(self._redis.xrevrange(STREAM, count=1))
        return cast("bytes", found[0][0]) if found else b"0-0"

    async def read(self, after: bytes, *, wait_s: float) -> list[AnnouncedChange]:
        """The entries after this one, the oldest first; waits so long for the first."""
        reply = await _asked(self._redis.xread({STREAM: after}, count=READ_MAX, block=int(wait_s * 1000)))
        return [
            AnnouncedChange(entry_id, _ids(fields, b"keys"), _ids(fields, b"users"))
            for _, entries in reply or ()
            for entry_id, fields in entries
        ]

    async def confirm(self, proxy: str, changes: Iterable[AnnouncedChange]) -> None:
        """This proxy follows, and has acted on these."""
        pipe = self._redis.pipeline(transaction=False)
        for change in changes:
            name = CONFIRMED + change.entry_id.decode()
            pipe.sadd(name, proxy)
            pipe.expire(name, CONFIRMED_S)
        pipe.eval(_HERE, 1, PROXIES, proxy)
        await _asked(pipe.execute())

    async def leave(self, proxy: str) -> None:
        """This proxy takes no calls any more."""
        await _asked(self._redis.zrem(PROXIES, proxy))


def _ids(fields: dict[bytes, bytes], name: bytes) -> frozenset[str]:
    return frozenset(fields.get(name, b"").decode("utf-8", "replace").split())


async def _asked(reply: Any) -> Any:
    try:
        return await cast("Awaitable[Any]", reply)
    except (AuthenticationError, NoPermissionError) as error:
        raise DependencyRefused("redis", f"{type(error).__name__}: {error}") from error
    except (RedisError, OSError, RuntimeError) as error:  # RuntimeError: uvloop, of a connection half-closed
        raise DependencyDown("redis", f"{type(error).__name__}: {error}") from error
