"""Keys that have been good, as all proxies of a Redis remember them beyond their own lives.

A new proxy knows no key. While somebody tries unknown keys from the address that all customers come from, it could let
none of them in; so it asks about a key that has been good whatever its address has done. Redis holds no key and no hash
of one, but a MAC under GATEWAY_SECRETS, which is not in Redis; and it decides nothing: Unkey is always asked.
"""

import hmac
from collections.abc import Callable
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.config.key_ring import KeyRing
from gateway.kit.errors import DependencyDown

NAME: Final = "gateway:good_keys"
"""The sorted set of MACs, by the Unix second at which each key was last good."""
EXCHANGE_S: Final = 10.0
"""Seconds between two exchanges with Redis."""
OVERLAP_S: Final = 120
"""Seconds by which what is asked for overlaps: clocks of hosts differ."""
RENEWED_S: Final = 86_400
"""Seconds after which a key that is still good is written down again."""
MAC_BYTES: Final = 16
_PURPOSE: Final = b"good key\0"
"""Makes these MACs of no use for anything else under the same secrets."""


class GoodKeys:
    """One per process."""

    def __init__(
        self, redis: "Redis", ring: KeyRing, *, remember_s: int, keys_max: int, unix_s: Callable[[], float]
    ) -> None:
        """`ring`: the newest secret marks, every one of them is known. `keys_max`: how many are remembered."""
        self._redis: Final = redis
        self._secrets: Final = [secret for key_id in ring.ids if (secret := ring.key(key_id)) is not None]
        self._remember_s: Final = remember_s
        self._keys_max: Final = keys_max
        self._unix_s: Final = unix_s
        self._known: Final[dict[bytes, float]] = {}
        """When each was last good, as far as that is in Redis or is to be."""
        self._new: dict[bytes, float] = {}
        self._gone: set[bytes] = set()
        self._heard_s = 0.0

    def has(self, key: str) -> bool:
        """Whether it has been good, here or at another proxy."""
        return any(mac in self._known for mac in self._macs(key))

    def remember(self, key: str) -> None:
        """Unkey has just called it good."""
        mac, now = self._mac(self._secrets[0], key), self._unix_s()
        if now - self._known.get(mac, 0.0) > RENEWED_S:
            self._gone.discard(mac)
            self._new[mac] = now
            self._keep(mac, now)

    def forget(self, key: str) -> None:
        """Unkey has just called it unknown, or ended."""
        for mac in self._macs(key):
            if self._known.pop(mac, None) is not None:
                self._new.pop(mac, None)
                self._gone.add(mac)

    async def exchange(self) -> None:
        """Tells Redis what is new, and hears what other proxies have told it. Raises DependencyDown."""
        now, new, gone = self._unix_s(), self._new, self._gone
        self._new, self._gone = {}, set()
        try:
            told = await self._tell(now, new, gone)
        except (RedisError, OSError) as error:
            self._new, self._gone = new | self._new, gone | self._gone
            raise DependencyDown("redis", type(error).__name__) from error
        for mac, good_s in reversed(told):  # the oldest first
            if mac not in self._gone:
                self._keep(mac, max(good_s, self._known.get(mac, 0.0)))
        self._heard_s = now
        for mac in [mac for mac, good_s in self._known.items() if good_s < now - self._remember_s]:
            del self._known[mac]

    async def _tell(self, now: float, new: dict[bytes, float], gone: set[bytes]) -> list[tuple[bytes, float]]:
        async with self._redis.pipeline(transaction=True) as pipe:
            if new:
                pipe.zadd(NAME, new)
            if gone:
                pipe.zrem(NAME, *gone)
            oldest_s = now - self._remember_s
            pipe.zremrangebyscore(NAME, "-inf", f"({oldest_s}")
            pipe.zremrangebyrank(NAME, 0, -self._keys_max - 1)
            pipe.expire(NAME, self._remember_s)
            since_s = max(oldest_s, self._heard_s - OVERLAP_S)
            pipe.zrevrangebyscore(NAME, "+inf", since_s, start=0, num=self._keys_max, withscores=True)
            told: list[tuple[bytes, float]] = (await pipe.execute())[-1]
        return told

    def _keep(self, mac: bytes, good_s: float) -> None:
        self._known.pop(mac, None)  # to its end
        self._known[mac] = good_s
        while len(self._known) > self._keys_max:
            del self._known[next(iter(self._known))]

    def _macs(self, key: str) -> list[bytes]:
        return [self._mac(secret, key) for secret in self._secrets]

    def _mac(self, secret: bytes, key: str) -> bytes:
        return hmac.digest(secret, _PURPOSE + key.encode(), "sha256")[:MAC_BYTES]
