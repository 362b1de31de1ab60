"""The errors for calls that exceed a limit: which limit, what is spent, what is held, when to retry.

In OpenAI's codes, with the headers that OpenAI's own SDKs obey (`retry-after`, `x-should-retry`).
"""

from collections.abc import Sequence
from typing import Final

from gateway.kit.errors import ApiError, DependencyDown
from gateway.limits.claims import Hold, RateClaim, Slots, Taken, retry_after_s
from gateway.limits.headers import rate_headers
from pricing import nano_text

NO_RETRY: Final = {"x-should-retry": "false"}
SLOT_WAIT_MS: Final = 1000
HOLD_WAIT_MS: Final = 2000


def limit_error(of: Taken, every: Sequence[Taken]) -> ApiError:
    """The error for the claim that had no room; `every` claim of the call, for the headers."""
    claim = of.claim
    if isinstance(claim, Hold):
        return _budget(claim, of)
    if isinstance(claim, Slots):
        message = f"{claim.limit} calls at the same time are allowed, and as many are running. Wait for one to end."
        return ApiError(429, "rate_limit_exceeded", message, kind="requests", headers=_retry(SLOT_WAIT_MS))
    return _rate(claim, of, rate_headers(every))


def unavailable(error: DependencyDown) -> ApiError:
    """503: a limit that must hold cannot be checked."""
    message = f"The limits of this API key could not be checked right now ({error.what}); nothing was spent."
    return ApiError(503, "limits_unavailable", message, kind="server_error", headers={"Retry-After": "2"})


def not_priced(model: str) -> ApiError:
    """403: the cost of the call is unknown, so no budget can hold it."""
    message = f"This API key has a hard budget, and the gateway knows no price for {model!r} at this service tier."
    return ApiError(403, "model_not_priced", message, param="model", headers=NO_RETRY)


def too_many_free(limit: int, wait_ms: int) -> ApiError:
    """The bucket of what costs nothing is empty."""
    message = f"{limit:,} free or refused calls per minute of one API key are served here. Please try again later."
    return ApiError(429, "rate_limit_exceeded", message, kind="requests", headers=_retry(wait_ms))


def _rate(claim: RateClaim, of: Taken, headers: dict[str, str]) -> ApiError:
    per = "minute" if claim.period_s == 60 else f"{claim.period_s:g} s"
    if of.wait_ms < 0:
        message = f"This request counts for {claim.cost} tokens, and {claim.limit} per {per} are allowed."
        return ApiError(429, "rate_limit_exceeded", message, kind=claim.kind, headers={**headers, **NO_RETRY})
    what = f"{claim.limit} {claim.kind} per {per}"
    wait = f"{of.wait_ms / 1000:.3f}".rstrip("0").rstrip(".")
    message = f"Rate limit reached: {what} are allowed. Please try again in {wait}s."
    return ApiError(
        429, "rate_limit_exceeded", message, kind=claim.kind, headers={**headers, **_retry(max(1, of.wait_ms))}
    )


def _budget(claim: Hold, of: Taken) -> ApiError:
    budget = claim.budget
    limit, spent, held, need = (nano_text(nano) for nano in (budget.limit_nano, of.used, of.more, claim.nano))
    message = (
        f"No room in {budget.name()} of {limit} USD: {spent} spent, {held} held by running calls, and this call may "
        f"cost up to {need}. A lower limit on output tokens holds less."
    )
    # Only when running calls hold what this one needs does waiting help.
    later = of.used + claim.nano <= budget.limit_nano
    return ApiError(
        429,
        "insufficient_quota",
        message,
        kind="insufficient_quota",
        headers=_retry(HOLD_WAIT_MS) if later else NO_RETRY,
    )


def _retry(milliseconds: int) -> dict[str, str]:
    return {
        "Retry-After": retry_after_s(milliseconds),
        "retry-after-ms": str(milliseconds),
        "x-should-retry": "true",
    }
