"""What a call claims before it runs: requests, tokens, a slot, money. Plain values; counters.py counts them in Redis.

Whose a limit is, is part of its key: of a key (`k:`) or of a user (`u:`), so that all proxies count together.
"""

import math
from typing import Literal, NamedTuple

from gateway.limits.budgets import Budget, Window

Kind = Literal["requests", "tokens"]


class RateClaim(NamedTuple):
    """So many per period, as a bucket that holds `limit` and fills up evenly within `period_s` (GCRA)."""

    key: str
    kind: Kind
    limit: int
    period_s: float
    cost: int
    """What this call takes: 1, or its estimated tokens."""


class Slots(NamedTuple):
    """A number of concurrent calls."""

    key: str
    limit: int


class Hold(NamedTuple):
    """The most that this call may cost, set aside in one period of a budget."""

    key: str
    window: Window
    nano: int

    @property
    def budget(self) -> Budget:
        """Whose period it is."""
        return self.window.budget


Claim = RateClaim | Slots | Hold


CountInSeconds = tuple[int, float]
"""How many, and within how many seconds."""


class RateLimits(NamedTuple):
    """Limits of one key or one user; None is none."""

    requests: CountInSeconds | None = None
    tokens: CountInSeconds | None = None
    concurrent: int | None = None


class KeyLimits(NamedTuple):
    """Everything that bounds what one key may do."""

    of_key: RateLimits
    of_user: RateLimits
    budgets: tuple[Budget, ...]


class Taken(NamedTuple):
    """The result of one claim; the figures are those of its limit, including this call if it was admitted."""

    claim: Claim
    refused: bool
    used: int
    """Rate: what is left. Slots: calls that run. Hold: spent in the period, nano-USD."""
    more: int
    """Rate: milliseconds until the bucket is full again. Hold: held by calls that run, nano-USD."""
    wait_ms: int
    """Rate, refused: milliseconds until this call would fit; -1: never."""


def openai_duration(milliseconds: int) -> str:
    """As OpenAI writes resets: `12ms`, `1.5s`, `6m0s` (OpenAI's docs)."""
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, left = divmod(milliseconds, 60_000)
    seconds = f"{left / 1000:.3f}".rstrip("0").rstrip(".")
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"


def retry_after_s(milliseconds: int) -> str:
    """Whole seconds for `Retry-After`."""
    return str(max(1, math.ceil(milliseconds / 1000)))
