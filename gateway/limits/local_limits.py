"""What one proxy counts of each key in its own memory, before a request's body is read and without Redis.

It holds off what Redis would refuse anyway, bounds keys that have no limits of their own, and counts three things that
cost no money apart: free calls, calls that the gateway refuses, and calls that OpenAI refuses. Only the last can hold
off calls that cost something, because each of them makes a row. Other proxies are not counted here.
"""

from collections.abc import Callable
from itertools import islice
from typing import Final

from gateway.config.settings import LimitSettings
from gateway.kit.errors import ApiError
from gateway.limits.claims import CountInSeconds, KeyLimits, RateClaim, Slots, Taken
from gateway.limits.limit_errors import limit_error, too_many_free

KEYS_MAX: Final = 100_000
"""Keys remembered at most; the first idle ones are forgotten beyond."""
MINUTE_S: Final = 60.0
_LOOKED_AT: Final = 64


class KeyUse:
    """What one key does here. The instants are those at which a bucket is full again."""

    __slots__ = ("calls_full_s", "free_full_s", "running", "void_full_s")

    def __init__(self) -> None:
        self.running = 0
        self.calls_full_s = 0.0
        self.free_full_s = 0.0
        """Free calls, and those that the gateway refused."""
        self.void_full_s = 0.0
        """Calls that OpenAI refused: rows that cost nothing."""


class LocalLimits:
    """One per process."""

    def __init__(self, settings: LimitSettings, *, monotonic: Callable[[], float]) -> None:
        self._monotonic: Final = monotonic
        self._requests: Final = (settings.proxy_requests, MINUTE_S) if settings.proxy_requests else None
        self._concurrent: Final = settings.proxy_concurrent
        self._free: Final = settings.free_requests
        self._uses: Final[dict[str, KeyUse]] = {}

    def begin(self, key: str, key_limits: KeyLimits | None) -> KeyUse:
        """A metered call of this key begins; `end` it. Raises ApiError 429."""
        use = self._uses.get(key) or self._remember(key)
        now = self._monotonic()
        rate, slots = self._requests, self._concurrent
        if key_limits is not None:
            rate, slots = key_limits.of_key.requests or rate, key_limits.of_key.concurrent or slots
        if slots and use.running >= slots:
            taken = Taken(Slots(key, slots), refused=True, used=use.running, more=0, wait_ms=0)
            raise limit_error(taken, [taken])
        if use.void_full_s > now:
            self._take(use.void_full_s, now)
        if rate is not None:
            full_s = max(use.calls_full_s, now) + rate[1] / rate[0]
            if full_s - now > rate[1] * (1 + 1e-9):
                raise _too_fast(key, rate, full_s - now)
            use.calls_full_s = full_s
        use.running += 1
        return use

    def end(self, use: KeyUse, key_limits: KeyLimits | None, error: ApiError | None = None) -> None:
        """The call has ended; where the gateway has refused it with `error`, it counts as a refused call instead, as
        long as the key may have more of those, and as a call after that."""
        use.running -= 1
        if error is None or error.status >= 500:
            return
        if self._free:
            now = self._monotonic()
            try:
                use.free_full_s = self._take(use.free_full_s, now)
            except ApiError:
                return
        own = None if key_limits is None else key_limits.of_key.requests
        rate = own or self._requests
        if rate is not None:
            use.calls_full_s -= rate[1] / rate[0]

    def note_void(self, use: KeyUse) -> None:
        """OpenAI has refused a call: it has a row, and costs nothing."""
        if self._free:
            now = self._monotonic()
            use.void_full_s = min(max(use.void_full_s, now) + MINUTE_S / self._free, now + 2 * MINUTE_S)

    def take_free(self, key: str) -> None:
        """A call that costs nothing. Raises ApiError 429."""
        if self._free:
            use = self._uses.get(key) or self._remember(key)
            use.free_full_s = self._take(use.free_full_s, self._monotonic())

    def _take(self, full_s: float, now: float) -> float:
        """When the bucket is full again, after one more. Raises ApiError 429 when it is empty."""
        later_s = max(full_s, now) + MINUTE_S / self._free
        over_s = later_s - now - MINUTE_S
        if over_s > 1e-6:
            raise too_many_free(self._free, int(over_s * 1000) + 1)
        return later_s

    def _remember(self, key: str) -> KeyUse:
        if len(self._uses) >= KEYS_MAX:
            idle = [each for each, use in islice(self._uses.items(), _LOOKED_AT) if not use.running]
            for each in idle:
                del self._uses[each]
        use = self._uses[key] = KeyUse()
        return use


def _too_fast(key: str, rate: CountInSeconds, full_in_s: float) -> ApiError:
    limit, period_s = rate
    wait_ms = int((full_in_s - period_s) * 1000) + 1
    claim = RateClaim(key, "requests", limit, period_s, 1)
    taken = Taken(claim, refused=True, used=0, more=int(full_in_s * 1000), wait_ms=wait_ms)
    return limit_error(taken, [taken])
