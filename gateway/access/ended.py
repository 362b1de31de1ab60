"""Keys that were valid until Unkey reported their end: remembered longer than other refused keys.

Unkey's nodes cache a key for ten minutes and return a stale entry once each, so after "disabled" from one node another
may say "valid" (Unkey's server source). Such a "valid" is not believed, unless our own row says that a command has
let the key in: then it was "disabled" that was stale, or is over.
"""

from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import Final, NamedTuple

from gateway.keys.verify import Verification
from gateway.kit.errors import ApiError

CODES: Final = ("DISABLED", "EXPIRED", "NOT_FOUND")
"""What Unkey says of a key that has ended."""


def has_ended(verdict: Verification, expires: int | None, unix_s: float) -> bool:
    """Whether somebody ended a key that was good until `expires`, Unix milliseconds. One that has come to that end is
    none: every node knows it, so a "valid" after it means that the key was given more time."""
    came_to_its_end = expires is not None and expires / 1000 <= unix_s
    return verdict.code in CODES and not (verdict.code == "EXPIRED" and came_to_its_end)


class _End(NamedTuple):
    at_s: float
    """When it was heard, monotonic."""
    unix_s: float
    refusal: ApiError


class Ended:
    """One per process; the keys by the hash under which the proxy remembers them."""

    def __init__(
        self, remember_s: float, keys_max: int, *, monotonic: Callable[[], float], unix_s: Callable[[], float]
    ) -> None:
        self._remember_s: Final = remember_s
        self._keys_max: Final = keys_max
        self._monotonic: Final = monotonic
        self._unix_s: Final = unix_s
        self._ends: Final[OrderedDict[bytes, _End]] = OrderedDict()

    def remember(self, digest: bytes, refusal: ApiError) -> None:
        """A key that was good has ended. The first time counts: no node can have cached it as valid since then."""
        if digest not in self._ends:
            self._ends[digest] = _End(self._monotonic(), self._unix_s(), refusal)
        while len(self._ends) > self._keys_max:
            self._ends.popitem(last=False)

    def check(self, digest: bytes, enabled_at: datetime | None) -> None:
        """Before a "valid" of Unkey's is believed; `enabled_at` is our row's. Raises the refusal of a key that has
        ended."""
        end = self._ends.get(digest)
        if end is None:
            return
        is_let_in = enabled_at is not None and enabled_at.timestamp() > end.unix_s - self._remember_s
        if not is_let_in and self._monotonic() < end.at_s + self._remember_s:
            raise end.refusal.with_traceback(None)
        del self._ends[digest]
