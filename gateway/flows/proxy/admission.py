"""Who is calling: an Unkey key becomes a user, from memory where it may, from Unkey and Postgres where it must.

Keys are remembered under an HMAC with a pepper that is random per boot, never as text. Every outcome that is not
plainly VALID is a refusal; an outage is 503, never 401 and never a free pass (facts/fault-matrix.md D10).
"""

import asyncio
import hmac
import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from gateway.core.config import KeySettings, LimitSettings
from gateway.core.errors import ApiError, DependencyDown
from gateway.core.limits import Terms
from gateway.core.permissions import ENDPOINT, MODEL, Allowed, allowed_of, granted_of
from gateway.edges.keys import Keys, Verdict
from gateway.flows.proxy.terms import terms_of

REFRESH_SHARE: Final = 0.8
"""Share of the fresh time after which a key in use is asked for again in the background."""
RETRY_S: Final = 2.0
"""Seconds a failed renewal waits before the next one, so that an outage costs one question, not one per call."""
KEY_CHARS_MAX: Final = 512


class Linked(Protocol):
    """What the ledger knows of a key's owner."""

    user_id: str
    is_active: bool
    api_key_id: str | None
    key_is_active: bool | None
    budgets: str


class Accounts(Protocol):
    """The one Postgres read that admission may make."""

    async def identity(self, external_id: str | None, unkey_key_id: str) -> Linked | None: ...


class Principal(NamedTuple):
    """The caller, as the ledger knows them."""

    user_id: str
    api_key_id: str | None
    unkey_key_id: str
    terms: Terms | None = None
    """What bounds the key; None when nothing does."""
    allowed: Allowed | None = None
    """Which endpoints and models it may call; None: all."""
    granted: frozenset[str] = frozenset()
    """Its permissions for what is beside OpenAI's API (`rooms.read`)."""

    def check_endpoint(self, name: str) -> None:
        """Raises ApiError for an endpoint that the key may not call."""
        if self.allowed is not None and not self.allowed.endpoint(name):
            raise _lacks(f"{ENDPOINT}{name}", None)

    def check_model(self, name: str) -> None:
        """Raises ApiError for a model that the key may not ask for."""
        if self.allowed is not None and not self.allowed.model(name):
            raise _lacks(f"{MODEL}{name}", "model")


class _Entry:
    __slots__ = ("fresh_until_s", "principal", "retry_at_s", "stale_until_s")

    def __init__(self, principal: Principal, fresh_until_s: float, stale_until_s: float, retry_at_s: float) -> None:
        self.principal = principal
        self.fresh_until_s = fresh_until_s
        self.stale_until_s = stale_until_s
        self.retry_at_s = retry_at_s


class Admission:
    """Turns keys into principals. One per process."""

    def __init__(
        self,
        keys: Keys,
        accounts: Accounts,
        settings: KeySettings,
        limits: LimitSettings,
        *,
        pepper: bytes,
        monotonic: Callable[[], float],
        unix_s: Callable[[], float],
    ) -> None:
        self._keys: Final = keys
        self._accounts: Final = accounts
        self._settings: Final = settings
        self._limits: Final = limits
        self._pepper: Final = pepper
        self._monotonic: Final = monotonic
        self._unix_s: Final = unix_s
        self._known: Final[OrderedDict[bytes, _Entry]] = OrderedDict()
        self._refused: Final[OrderedDict[bytes, tuple[float, ApiError]]] = OrderedDict()
        self._asking: Final[dict[bytes, asyncio.Task[Principal]]] = {}

    async def admit(self, key: str) -> Principal:
        """Raises ApiError: 401, 403 or 429 for a refused key, 503 when nobody can tell."""
        if not key or len(key) > KEY_CHARS_MAX:
            raise _invalid_key()
        digest = hmac.digest(self._pepper, key.encode(), "sha256")
        now = self._monotonic()
        entry = self._known.get(digest)
        if entry is not None:
            if now < entry.fresh_until_s:
                if now > entry.retry_at_s:
                    # Renewed ahead of time and off the call's path; the call itself never waits for it.
                    entry.retry_at_s = now + RETRY_S
                    self._ask(digest, key)
                return entry.principal
            if now < entry.stale_until_s and now < entry.retry_at_s and digest not in self._asking:
                return entry.principal
        refused = self._refused.get(digest)
        if refused is not None and now < refused[0]:
            raise refused[1].with_traceback(None)
        try:
            return await asyncio.shield(self._ask(digest, key))
        except DependencyDown as error:
            entry = self._known.get(digest)
            if entry is not None and self._monotonic() < entry.stale_until_s:
                entry.retry_at_s = self._monotonic() + RETRY_S
                return entry.principal
            raise _unavailable(error) from error

    def _ask(self, digest: bytes, key: str) -> "asyncio.Task[Principal]":
        """One question to Unkey for any number of waiters."""
        task = self._asking.get(digest)
        if task is None:
            task = self._asking[digest] = asyncio.get_running_loop().create_task(self._verify(digest, key))
            task.add_done_callback(lambda done: self._asked(digest, done))
        return task

    def _asked(self, digest: bytes, task: "asyncio.Task[Principal]") -> None:
        self._asking.pop(digest, None)
        if not task.cancelled():
            task.exception()  # a background renewal that failed is looked at by the next call, not by the loop

    async def _verify(self, digest: bytes, key: str) -> Principal:
        verdict = await self._keys.verify(key)
        now = self._monotonic()
        refusal = refusal_of(verdict, self._unix_s())
        if refusal is None:
            try:
                return await self._link(digest, verdict, now)
            except ApiError as error:
                refusal = error
        self._known.pop(digest, None)
        # A limit that ends sooner than the negative cache is asked about as soon as the client was told to come back.
        wait = min(self._settings.negative_s, float(refusal.headers.get("Retry-After", math.inf)))
        self._refused[digest] = (now + wait, refusal)
        while len(self._refused) > self._settings.negative_max:
            self._refused.popitem(last=False)
        raise refusal

    async def _link(self, digest: bytes, verdict: Verdict, now: float) -> Principal:
        """The user behind a valid key. Postgres being away does not end an identity that is already known."""
        key_id = verdict.key_id or ""
        external_id = verdict.identity.external_id if verdict.identity else None
        known = self._known.get(digest)
        try:
            linked = await self._accounts.identity(external_id or None, key_id)
        except DependencyDown:
            if known is None or known.principal.unkey_key_id != key_id:
                raise
            principal = known.principal
        else:
            if linked is None:
                raise ApiError(403, "key_not_linked", "This API key is valid but not linked to a user of this gateway.")
            if not linked.is_active:
                raise ApiError(403, "user_disabled", "The user of this API key is disabled.")
            if linked.key_is_active is False:
                raise _invalid_key("This API key is disabled.")
            terms = terms_of(verdict, linked.budgets, self._limits)
            given = verdict.permissions or ()
            principal = Principal(
                linked.user_id, linked.api_key_id, key_id, terms, allowed_of(given), granted_of(given)
            )
        # Past its expiry a key is neither fresh nor stale: Unkey is asked, and it may have been extended.
        ends = math.inf if verdict.expires is None else now + verdict.expires / 1000 - self._unix_s()
        fresh = now + self._settings.fresh_s
        stale = fresh + self._settings.stale_s
        renew = now + self._settings.fresh_s * REFRESH_SHARE
        self._known[digest] = _Entry(principal, min(fresh, ends), min(stale, ends), renew)
        self._known.move_to_end(digest)
        self._refused.pop(digest, None)
        while len(self._known) > self._settings.cache_max:
            self._known.popitem(last=False)
        return principal


def bearer(authorization: list[str]) -> str:
    """The key of the request's Authorization headers. Raises ApiError: exactly one, `Bearer <key>`."""
    if len(authorization) > 1:
        raise ApiError(400, "duplicate_header", "The Authorization header is given more than once.")
    if not authorization:
        raise ApiError(
            401,
            "missing_api_key",
            "You didn't provide an API key. Send it as 'Authorization: Bearer YOUR_KEY'.",
        )
    scheme, _, key = authorization[0].partition(" ")
    if scheme.lower() != "bearer" or not key or not key.isascii() or not key.isprintable() or " " in key:
        raise _invalid_key()
    return key


def refusal_of(verdict: Verdict, unix_s: float) -> ApiError | None:
    """What the client is told for each of Unkey's codes (facts/unkey.md §3); None for VALID only."""
    code = verdict.code
    if verdict.valid is True and code == "VALID":
        return None
    if code == "NOT_FOUND":
        return _invalid_key()
    if code in ("DISABLED", "EXPIRED"):
        return _invalid_key("This API key is disabled." if code == "DISABLED" else "Your API key has expired.")
    if code == "INSUFFICIENT_PERMISSIONS":
        return ApiError(403, "insufficient_permissions", "This API key lacks the permission for this request.")
    if code == "RATE_LIMITED":
        reset = max((limit.reset for limit in verdict.ratelimits or () if limit.exceeded), default=0)
        wait = max(1, math.ceil(reset / 1000 - unix_s))
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


def _invalid_key(message: str = "Incorrect API key provided.") -> ApiError:
    return ApiError(401, "invalid_api_key", message)


def _lacks(permission: str, param: str | None) -> ApiError:
    message = f"This API key lacks the permission {permission!r}."
    return ApiError(403, "insufficient_permissions", message, param=param)


def _unavailable(error: DependencyDown) -> ApiError:
    message = "The key could not be verified right now; please try again."
    return ApiError(503, "key_verification_unavailable", message, kind="server_error", headers={"Retry-After": "2"})
