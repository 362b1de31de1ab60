"""The limits of a key: rates from Unkey if it has any, else from our settings, and budgets from the ledger.

Unkey's own counting is left to Unkey: it sees one verification for many calls, so what it allows per minute is counted
here as well, call by call (Unkey's docs). A limit named `key-tokens` or `tokens` counts tokens, one named
`concurrent` calls at the same time; any other that each verification counts against counts requests.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from gateway.config.settings import LimitSettings
from gateway.keys.verify import RateLimit, Verification, meta_of
from gateway.limits.budgets import Budget
from gateway.limits.claims import KeyLimits, RateLimits

MINUTE_S: Final = 60.0
NONE: Final = RateLimits()
_budgets: Final = msgspec.json.Decoder(tuple[Budget, ...])
KINDS: Final = {"tokens": "tokens", "key-tokens": "tokens", "concurrent": "concurrent"}
"""What limits of these names are about; any other is about requests. Limits of key and identity are merged by name at
Unkey, and the key's wins: `keys create` names the key's so that no identity's has the same (Unkey's server source)."""


def build_key_limits(verdict: Verification, budgets: str, settings: LimitSettings) -> KeyLimits | None:
    """None when nothing bounds this key, so that its calls need no Redis. `budgets` is JSON, from the ledger."""
    identity = (verdict.identity.ratelimits or []) if verdict.identity else []
    shared = {limit.id for limit in identity if limit.id}
    own = [limit for limit in verdict.ratelimits or () if limit.id not in shared]
    of_key = _limits(own, settings.key_requests, settings.key_tokens, _concurrent(verdict) or settings.key_concurrent)
    of_user = _limits(identity, settings.user_requests, settings.user_tokens, settings.user_concurrent)
    key_limits = KeyLimits(of_key, of_user, _budgets.decode(budgets))
    return key_limits if (of_key, of_user, key_limits.budgets) != (NONE, NONE, ()) else None


def _limits(limits: Iterable[RateLimit], requests: int | None, tokens: int | None, slots: int | None) -> RateLimits:
    """The tightest of each kind; what Unkey has none of comes from our settings."""
    found: dict[str, tuple[int, float]] = {}
    for limit in limits:
        kind = KINDS.get(limit.name, "requests")
        if limit.limit < 1 or limit.duration < 1 or (kind == "requests" and not limit.auto_apply):
            continue  # one that only counts when it is asked for by name is not about calls
        given = (limit.limit, limit.duration / 1000)
        known = found.get(kind)
        if known is None or given[0] / given[1] < known[0] / known[1]:
            found[kind] = given
    concurrent = found.get("concurrent")
    return RateLimits(
        requests=found.get("requests") or (None if requests is None else (requests, MINUTE_S)),
        tokens=found.get("tokens") or (None if tokens is None else (tokens, MINUTE_S)),
        concurrent=slots if concurrent is None else concurrent[0],
    )


def _concurrent(verdict: Verification) -> int | None:
    """Kept at the key itself: a limit of Unkey's would count verifications."""
    found = meta_of(verdict).concurrent
    return found if type(found) is int and found > 0 else None
