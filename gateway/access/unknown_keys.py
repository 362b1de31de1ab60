"""How many unknown keys one address may try in a minute, so that guessing neither floods Unkey nor pays.

Counts keys that Unkey has refused with 401, never questions that are still under way: a proxy that has just started
knows no key, and behind a balancer every customer has the same address. Where many customers come from, more mistype
theirs: each new good key allows ten wrong ones. Keys that are known pass whatever their address has done.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

from gateway.http.addresses import bucket_of
from gateway.kit.errors import ApiError

MINUTE_S: Final = 60.0
ADDRESSES_MAX: Final = 10_000
"""Addresses remembered; the one that was quiet longest goes first."""
REFUSED_PER_GOOD: Final = 10
"""Refused keys that an address may have for each new key of it that was good, where that is more than its share."""


class _Minute(NamedTuple):
    since_s: float
    refused: int = 0
    good: int = 0


class UnknownKeyLimit:
    """One per process."""

    def __init__(self, per_minute: int, *, monotonic: Callable[[], float]) -> None:
        """`per_minute` 0: no bound."""
        self._per_minute: Final = per_minute
        self._monotonic: Final = monotonic
        self._minutes: Final[OrderedDict[str, _Minute]] = OrderedDict()

    def check(self, peer: str) -> None:
        """Before an unknown key is asked about. Raises ApiError 429 when this address has used up its share."""
        if not self._per_minute:
            return
        minute = self._minute_of(bucket_of(peer))
        if minute.refused >= max(self._per_minute, REFUSED_PER_GOOD * minute.good):
            wait = math.ceil(minute.since_s + MINUTE_S - self._monotonic())
            message = "Too many incorrect API keys from this address; please try again later."
            raise ApiError(429, "rate_limit_exceeded", message, kind="requests", headers={"Retry-After": str(wait)})

    def count_refused(self, peer: str) -> None:
        """Unkey does not know a key that came from there, or it has ended."""
        bucket = bucket_of(peer)
        minute = self._minute_of(bucket)
        self._keep(bucket, minute._replace(refused=minute.refused + 1))

    def count_good(self, peer: str) -> None:
        """A key that came from there, and that this process did not know, is good."""
        bucket = bucket_of(peer)
        minute = self._minute_of(bucket)
        self._keep(bucket, minute._replace(good=minute.good + 1))

    def _minute_of(self, bucket: str) -> _Minute:
        now = self._monotonic()
        minute = self._minutes.get(bucket)
        return _Minute(now) if minute is None or now >= minute.since_s + MINUTE_S else minute

    def _keep(self, bucket: str, minute: _Minute) -> None:
        self._minutes[bucket] = minute
        self._minutes.move_to_end(bucket)
        while len(self._minutes) > ADDRESSES_MAX:
            self._minutes.popitem(last=False)
