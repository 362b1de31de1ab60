"""What one proxy counts of each key in its own memory, before a request's body is read and without Redis.

It holds off what Redis would refuse anyway, bounds keys that have no limits of their own, and gives free and refused
calls a bucket of their own, so that neither costs a paid call its place. Other proxies are not counted here.
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

    __slots__ = ("calls_full_s", "free_full_s", "running")

    def __init__(self) -> None:
        self.running = 0
        self.calls_full_s = 0.0
        self.free_full_s = 0.0


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
        if self._free and use.free_full_s > now:
            self._check_free(use, now)
        if rate is not None:
            full_s = max(use.calls_full_s, now) + rate[1] / rate[0]
            if full_s - now > rate[1] * (1 + 1e-9):
                raise _too_fast(key, rate, full_s - now)
            use.calls_full_s = full_s
        use.running += 1
        return use

    def end(self, use: KeyUse, key_limits: KeyLimits | None, error: ApiError | None = None) -> None:
        """The call has ended; where the gateway has refused it with `error`, it was no call but a refused one."""
        use.running -= 1
        if error is None or error.status >= 500:
            return
        own = None if key_limits is None else key_limits.of_key.requests
        rate = own or self._requests
        if rate is not None:
            use.calls_full_s -= rate[1] / rate[0]
        self.note_refused(use)

    def note_refused(self, use: KeyUse) -> None:
        """A call was refused, by the gateway or by OpenAI."""
        if self._free:
            now = self._monotonic()
            use.free_full_s = min(max(use.free_full_s, now) + MINUTE_S / self._free, now + 2 * MINUTE_S)

    def take_free(self, key: str) -> None:
        """A call that costs nothing. Raises ApiError 429."""
        if self._free:
            use = self._uses.get(key) or self._remember(key)
            now = self._monotonic()
            self._check_free(use, now)
            use.free_full_s = max(use.free_full_s, now) + MINUTE_S / self._free

    def _check_free(self, use: KeyUse, now: float) -> None:
        over_s = max(use.free_full_s, now) + MINUTE_S / self._free - now - MINUTE_S
        if over_s > 1e-6:
            raise too_many_free(self._free, int(over_s * 1000) + 1)

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
