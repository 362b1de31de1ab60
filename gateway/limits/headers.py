"""What an answer says of its key's limits: OpenAI's `x-ratelimit-*`, and how far a soft budget is used up.

A soft budget that reaches a share is also logged and counted, once per process, period and share.
"""

from collections.abc import Sequence
from typing import Final

import structlog

from gateway.limits.budgets import WARN_SHARES
from gateway.limits.claims import Hold, RateClaim, Taken, openai_duration
from pricing import nano_text

REPORTED_MAX: Final = 10_000
"""Periods remembered; beyond it all are forgotten, and may be reported once more."""
_log: Final = structlog.get_logger("gateway.limits")


class RateLimitHeaders:
    """One per process."""

    def __init__(self) -> None:
        self._reported: Final[set[tuple[str, int]]] = set()
        self.counted: Final[dict[int, int]] = dict.fromkeys(WARN_SHARES, 0)
        """How often each share (per cent) was reached."""

    def build(self, taken: Sequence[Taken]) -> dict[str, str]:
        """For the answer of a call that was let in."""
        headers = rate_headers(taken)
        soft = [self._used(each) for each in taken if isinstance(each.claim, Hold) and not each.claim.budget.hard]
        told = [text for share, text in soft if share >= WARN_SHARES[0]]
        if told:
            headers["x-gateway-budget"] = "; ".join(told)
        return headers

    def _used(self, taken: Taken) -> tuple[int, str]:
        """Per cent spent, and the sentence that says so."""
        claim = taken.claim
        assert isinstance(claim, Hold)
        limit = claim.budget.limit_nano
        share = 100 if limit == 0 else taken.used * 100 // limit
        for step in WARN_SHARES:
            if share >= step and (claim.key, step) not in self._reported:
                if len(self._reported) >= REPORTED_MAX:
                    self._reported.clear()
                self._reported.add((claim.key, step))
                self.counted[step] += 1
                _log.warning("budget", budget=claim.budget.id, user=claim.budget.user_id, reached_per_cent=step)
        return share, f"{claim.budget.name()} of {nano_text(limit)} USD is used to {share} %"


def rate_headers(taken: Sequence[Taken]) -> dict[str, str]:
    """`x-ratelimit-{limit,remaining,reset}-{requests,tokens}`, of whichever limit of a kind has least left."""
    least: dict[str, Taken] = {}
    for each in taken:
        if isinstance(each.claim, RateClaim):
            known = least.get(each.claim.kind)
            if known is None or each.used < known.used:
                least[each.claim.kind] = each
    headers = {}
    for kind, each in least.items():
        assert isinstance(each.claim, RateClaim)
        headers[f"x-ratelimit-limit-{kind}"] = str(each.claim.limit)
        headers[f"x-ratelimit-remaining-{kind}"] = str(each.used)
        headers[f"x-ratelimit-reset-{kind}"] = openai_duration(each.more)
    return headers
