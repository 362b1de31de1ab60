"""What fills a Redis: its memory by purpose, walked through a piece at a time. Must never ask for all keys at once.

One walk at a time per server: who finds another's mark does not walk. A look costs Redis a thousand keys, two
milliseconds or so. The figures are those of the last walk that came to its end; until there is one, of what was seen.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, cast

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, OutOfMemoryError

PIECE: Final = 1000
"""Keys in one look."""
PURPOSES: Final = ("stream", "limits", "owners", "hosts", "other")
BY_PREFIX: Final = ((b"limit:", "limits"), (b"owner:", "owners"), (b"host:", "hosts"))
"""`hosts`: calls in flight. The stream has a name of its own; all else is `other`, and what belongs to no key."""
MARK: Final = "limit:memory-walk"
MARK_S: Final = 30
"""Seconds after which another process may walk in place of one that is gone."""


class RedisMemory(NamedTuple):
    """A server's memory, bytes."""

    used: int
    """What counts against the limit."""
    limit: int
    """0: none of its own."""
    by_purpose: dict[str, int]
    """Every purpose; together they are `used`."""
    is_whole: bool
    """Whether a walk has come to its end."""

    @property
    def is_full(self) -> bool:
        """Whether it refuses what needs room."""
        return 0 < self.limit <= self.used


class MemoryWalk:
    """One process's walk through one server. What goes wrong on the way is redis-py's to raise."""

    def __init__(self, redis: "Redis", *, stream: str, name: str) -> None:
        """`name`: this process's, which nobody else has."""
        self._redis: Final = redis
        self._stream: Final = stream.encode()
        self._name: Final = name.encode()
        self._cursor = 0
        self._sizes: dict[str, int] = {}
        self._whole: dict[str, int] | None = None

    async def is_mine(self) -> bool:
        """Whether this process walks. A full server takes no mark, and then everybody does: it is worth it."""
        try:
            holder = await self._redis.set(MARK, self._name, nx=True, ex=MARK_S, get=True)
        except OutOfMemoryError:
            return True
        if holder == self._name:
            await self._redis.expire(MARK, MARK_S)
        return holder is None or holder == self._name

    async def look(self) -> RedisMemory:
        """The next piece; the figures as they are known now."""
        info = await self._redis.info("memory")
        self._cursor, names = await self._redis.scan(self._cursor, count=PIECE)
        keys = cast("list[bytes]", names)  # nothing is decoded
        for key, size in zip(keys, await self._measure(keys), strict=True):
            purpose = self._purpose_of(key)
            self._sizes[purpose] = self._sizes.get(purpose, 0) + size
        if self._cursor == 0:
            self._whole, self._sizes = self._sizes, {}
        used = int(info["used_memory"]) - int(info.get("mem_not_counted_for_evict", 0))
        sizes = self._sizes if self._whole is None else self._whole
        known = {purpose: sizes.get(purpose, 0) for purpose in PURPOSES}
        known["other"] = max(0, used - sum(known.values()) + known["other"])
        return RedisMemory(used, int(info["maxmemory"]), known, self._whole is not None)

    async def _measure(self, keys: Sequence[bytes]) -> list[int]:
        """The size of each key, by a sample of its fields. One that is gone, or that this login may not read, is 0."""
        pipe = self._redis.pipeline(transaction=False)
        for key in keys:
            pipe.memory_usage(key)
        answers: list[Any] = await pipe.execute(raise_on_error=False) if keys else []
        for answer in answers:
            if isinstance(answer, Exception) and not isinstance(answer, NoPermissionError):
                raise answer
        return [answer if isinstance(answer, int) else 0 for answer in answers]

    def _purpose_of(self, key: bytes) -> str:
        if key == self._stream:
            return "stream"
        return next((purpose for prefix, purpose in BY_PREFIX if key.startswith(prefix)), "other")
