"""The error that a client gets for each of Unkey's answers (Unkey's docs). Everything but a plain VALID is refused."""

import math
from datetime import datetime
from typing import Protocol

from gateway.http.credentials import invalid_key
from gateway.keys.permissions import are_told
from gateway.keys.verify import AskedTooOften, Verification, meta_of
from gateway.kit.errors import ApiError, DependencyDown


class Linked(Protocol):
    """What the ledger knows of a key's owner."""

    user_id: str
    is_active: bool
    api_key_id: str | None
    key_is_active: bool | None
    key_enabled_at: datetime | None
    key_expires_at: datetime | None
    budgets: str


def check_owner(linked: Linked | None, *, require_row: bool) -> Linked:
    """Raises the refusal of a key that Unkey may call valid and the ledger does not."""
    if linked is None or (linked.api_key_id is None and require_row):
        raise ApiError(403, "key_not_linked", "This API key is valid but not linked to a user of this gateway.")
    if not linked.is_active:
        raise ApiError(403, "user_disabled", "The user of this API key is disabled.")
    if linked.key_is_active is False:
        raise invalid_key("This API key is disabled.")
    return linked


def verification_error(verdict: Verification, unix_s: float) -> ApiError | None:
    """The client's error for each of Unkey's codes (Unkey's docs); None only for VALID."""
    code = verdict.code
    if verdict.valid is True and code == "VALID":
        return None
    if code == "NOT_FOUND":
        return invalid_key()
    if code in ("DISABLED", "EXPIRED"):
        return invalid_key("This API key is disabled." if code == "DISABLED" else "Your API key has expired.")
    if code == "INSUFFICIENT_PERMISSIONS":
        return ApiError(403, "insufficient_permissions", "This API key lacks the permission for this request.")
    if code == "RATE_LIMITED":
        reset = max((limit.reset for limit in verdict.ratelimits or () if limit.exceeded), default=0)
        # After that instant, not at it: Unkey's window slides, and there the one before still counts in full.
        wait = max(1, math.floor(reset / 1000 - unix_s) + 1)
        headers = {"Retry-After": str(wait)}
        return ApiError(
            429, "rate_limit_exceeded", "Rate limit reached for this API key.", kind="requests", headers=headers
        )
    if code == "USAGE_EXCEEDED":
        message = "This API key has used up its credits."
        no_retry = {"x-should-retry": "false"}
        return ApiError(429, "insufficient_quota", message, kind="insufficient_quota", headers=no_retry)
    # FORBIDDEN, and any code that Unkey may add one day: closed.
    return ApiError(403, "access_denied", "This API key is not allowed to make this request.")


def foreign_key(verdict: Verification, keyspace: str | None) -> ApiError | None:
    """A valid key of another API of the workspace is none of ours. An answer that does not tell the keyspace is left to
    the rows of our own keys."""
    if keyspace is None or verdict.keyspace_id in (None, keyspace):
        return None
    return invalid_key()


def unavailable(error: DependencyDown) -> ApiError:
    """503: whether the key is good is unknown."""
    message = "The key could not be verified right now; please try again."
    wait = math.ceil(error.retry_after_s) if isinstance(error, AskedTooOften) else 2
    headers = {"Retry-After": str(wait)}
    return ApiError(503, "key_verification_unavailable", message, kind="server_error", headers=headers)


def lacks_bounds(verdict: Verification) -> bool:
    """Whether this key is bound by permissions but the answer has none, so that what it may call is unknown."""
    return meta_of(verdict).bound is True and not are_told(verdict.permissions or ())


def bounds_missing() -> ApiError:
    """403 for a key whose bounds are gone; without them it could call everything."""
    message = "This API key is bound by permissions, and none of them could be found."
    return ApiError(403, "insufficient_permissions", message)


def permission_missing(permission: str, param: str | None) -> ApiError:
    """403 that names the missing permission."""
    message = f"This API key lacks the permission {permission!r}."
    return ApiError(403, "insufficient_permissions", message, param=param)
