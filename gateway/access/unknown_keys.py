"""How many unknown keys one address may try in a minute, so that guessing neither floods Unkey nor pays.

Counts questions to Unkey that are under way or ended in 401. Keys that are known pass whatever their address has done:
behind a balancer everybody has the same one.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from gateway.http.addresses import bucket_of
from gateway.kit.errors import ApiError

MINUTE_S: Final = 60.0
ADDRESSES_MAX: Final = 10_000
"""Addresses remembered; the one that was quiet longest goes first."""


class UnknownKeyLimit:
    """One per process."""

    def __init__(self, per_minute: int, *, monotonic: Callable[[], float]) -> None:
        """`per_minute` 0: no bound."""
        self._per_minute: Final = per_minute
        self._monotonic: Final = monotonic
        self._counts: Final[OrderedDict[str, tuple[float, int]]] = OrderedDict()

    def take(self, peer: str) -> None:
        """Counts a request about an unknown key. Raises ApiError 429 when this address has used up its share."""
        if not self._per_minute:
            return
        peer = bucket_of(peer)
        now = self._monotonic()
        since_s, count = self._counts.get(peer, (now, 0))
        if now >= since_s + MINUTE_S:
            since_s, count = now, 0
        if count >= self._per_minute:
            wait = math.ceil(since_s + MINUTE_S - now)
            message = "Too many incorrect API keys from this address; please try again later."
            raise ApiError(429, "rate_limit_exceeded", message, kind="requests", headers={"Retry-After": str(wait)})
        self._counts[peer] = since_s, count + 1
        self._counts.move_to_end(peer)
        while len(self._counts) > ADDRESSES_MAX:
            self._counts.popitem(last=False)

    def give_back(self, peer: str) -> None:
        """The key turned out to be known, or Unkey did not answer."""
        peer = bucket_of(peer)
        since_s, count = self._counts.get(peer, (0.0, 0))
        if count:
            self._counts[peer] = since_s, count - 1
