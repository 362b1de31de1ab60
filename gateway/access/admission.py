"""Admission: turns an Unkey key into a user, from memory if possible, otherwise from Unkey and Postgres.

Keys are remembered under a keyed hash with a pepper that is random per boot, never as text. Every outcome that is not
plainly VALID is a refusal; an outage is 503, never 401 and never a free pass.
"""

import asyncio
import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import Final, NamedTuple, Protocol

import msgspec

from gateway.access.ended import Ended, has_ended
from gateway.access.good_keys import GoodKeys
from gateway.access.line import QuestionLine
from gateway.access.unknown_keys import UnknownKeyLimit
from gateway.access.verification import KeyVerifier
from gateway.access.verification_results import (
    Linked,
    bounds_missing,
    check_owner,
    foreign_key,
    lacks_bounds,
    permission_missing,
    unavailable,
    verification_error,
)
from gateway.config.settings import KeySettings, LimitSettings
from gateway.http.credentials import invalid_key
from gateway.keys.permissions import ENDPOINT, MODEL, Allowed, allowed_of, granted_of, may_call_model
from gateway.keys.verify import RateLimit, Verification
from gateway.kit.errors import ApiError, DependencyDown
from gateway.limits.claims import KeyLimits
from gateway.limits.key_limits import build_key_limits

REFRESH_SHARE: Final = 0.8
"""Share of the fresh time after which a key in use is asked for again in the background."""
RETRY_S: Final = 2.0
"""Seconds a failed renewal waits before the next one, so that an outage costs one question, not one per call."""
KEY_CHARS_MAX: Final = 512


class IdentityLookup(Protocol):
    """The one Postgres read that admission may make."""

    async def identity(self, external_id: str | None, unkey_key_id: str) -> Linked | None: ...


class Principal(NamedTuple):
    """The caller, as the ledger knows them."""

    user_id: str
    api_key_id: str | None
    unkey_key_id: str
    key_limits: KeyLimits | None = None
    """What bounds the key; None when nothing does."""
    allowed: Allowed | None = None
    """Which endpoints and models it may call; None: all."""
    granted: frozenset[str] = frozenset()
    """Its permissions for what is beside OpenAI's API (`rooms.read`)."""
    due: bool = False
    """Whether Unkey should be asked about the key again on behalf of this call: `Admission.renew`."""

    def check_endpoint(self, name: str) -> None:
        """Raises ApiError for an endpoint that the key may not call."""
        if self.allowed is not None and not self.allowed.endpoint(name):
            raise permission_missing(f"{ENDPOINT}{name}", None)

    def check_model(self, name: str) -> None:
        """Raises ApiError for a model that the key may not ask for."""
        if (self.allowed is not None or ":" in name) and not may_call_model(self.allowed, name):
            raise permission_missing(f"{MODEL}{name}", "model")


class _Limits(NamedTuple):
    """The limits that Unkey last told of a key, and until when they stand in for an answer without any."""

    ratelimits: list[RateLimit] | None
    until_s: float


class _Entry:
    __slots__ = ("expires", "fresh_until_s", "limits", "principal", "retry_at_s", "stale_until_s")

    def __init__(
        self,
        principal: Principal,
        limits: _Limits,
        expires: int | None,
        *,
        fresh_until_s: float,
        stale_until_s: float,
        retry_at_s: float,
    ) -> None:
        self.principal = principal
        self.limits = limits
        self.expires = expires
        """As Unkey told it with the answer."""
        self.fresh_until_s = fresh_until_s
        self.stale_until_s = stale_until_s
        self.retry_at_s = retry_at_s


class Admission:
    """Turns keys into principals. One per process."""

    def __init__(
        self,
        verifier: KeyVerifier,
        accounts: IdentityLookup,
        settings: KeySettings,
        limits: LimitSettings,
        *,
        pepper: bytes,
        monotonic: Callable[[], float],
        unix_s: Callable[[], float],
        draw: Callable[[int], int],
        good_keys: GoodKeys | None = None,
    ) -> None:
        """`good_keys`: what other proxies, and those before this one, knew to be good. `draw` draws lots (line.py)."""
        self._verifier: Final = verifier
        self._accounts: Final = accounts
        self._settings: Final = settings
        self._limits: Final = limits
        # Every call hashes its key. (BLAKE2's keyed mode is a MAC; HMAC by OpenSSL costs four times as much.)
        self._keyed: Final = hashlib.blake2b(key=pepper, digest_size=32)
        self._monotonic: Final = monotonic
        self._unix_s: Final = unix_s
        self._good_keys: Final = good_keys
        self._known: Final[OrderedDict[bytes, _Entry]] = OrderedDict()
        self._refused: Final[OrderedDict[bytes, tuple[float, ApiError]]] = OrderedDict()
        self._asking: Final[dict[bytes, asyncio.Task[Principal]]] = {}
        self._changes = 0
        """How often keys were changed: what was asked before the last change is not remembered."""
        self._ended: Final = Ended(settings.revoked_s, settings.negative_max, monotonic=monotonic, unix_s=unix_s)
        self._unknown_keys: Final = UnknownKeyLimit(settings.misses_per_minute, monotonic=monotonic)
        self._strangers: Final = QuestionLine(draw)
        self._familiar: Final = QuestionLine(draw)
        """Keys that are known, or have been good: they never wait behind strangers."""

    async def admit(self, key: str, *, endpoint: str = "", peer: str | None = None) -> Principal:
        """Raises ApiError: 401, 403 or 429 for a refused key, 503 when that is unknown.

        `endpoint` is the catalogue's name of what is called, for Unkey's analytics; `peer` is the caller's address.
        """
        if not key or len(key) > KEY_CHARS_MAX:
            raise invalid_key()
        digest, now = self._digest(key), self._monotonic()
        entry = self._known.get(digest)
        if entry is not None:
            if now < entry.fresh_until_s:
                if now <= entry.retry_at_s:
                    return entry.principal
                # Renewed ahead of time, by this call, which does not wait for it.
                entry.retry_at_s = now + RETRY_S
                return entry.principal._replace(due=True)
            if now < entry.stale_until_s and now < entry.retry_at_s and digest not in self._asking:
                return entry.principal
        refused = self._refused.get(digest)
        if refused is not None and now < refused[0] and not self._strict:
            raise refused[1].with_traceback(None)
        if self._settings.prefixes and not key.startswith(self._settings.prefixes):
            raise invalid_key()  # none of ours looks like this: it is neither asked about nor counted
        try:
            return await asyncio.shield(self._ask(digest, key, endpoint=endpoint, peer=peer))
        except DependencyDown as error:
            entry = self._known.get(digest)
            if entry is not None and self._monotonic() < entry.stale_until_s:
                entry.retry_at_s = self._monotonic() + RETRY_S
                return entry.principal
            raise unavailable(error) from error

    def renew(self, key: str, *, endpoint: str = "", model: str = "") -> None:
        """Asks about a key that `admit` called due, off the path of its call."""
        self._ask(self._digest(key), key, endpoint=endpoint, model=model)

    async def look_again(self, keys: frozenset[str], users: frozenset[str]) -> int:
        """Asks Postgres about those of these keys (Unkey's ids), and of these users' keys, that are remembered: what it
        refuses is refused from now on. How many. What was refused may be asked about again. Lets nobody in.

        Raises DependencyDown; then the rest is as it was.
        """
        self._forget_questions()
        found = [
            (digest, entry)
            for digest, entry in self._known.items()
            if entry.principal.unkey_key_id in keys or entry.principal.user_id in users
        ]
        ended = 0
        for digest, entry in found:
            linked = await self._accounts.identity(entry.principal.user_id, entry.principal.unkey_key_id)
            try:
                owner = check_owner(linked, require_row=self._settings.require_row)
                ends = self._monotonic_of(owner.key_expires_at)
            except ApiError as refusal:
                self._known.pop(digest, None)
                self._refuse(digest, refusal)
                ended += 1
            else:  # its end may have moved nearer
                entry.fresh_until_s = min(entry.fresh_until_s, ends)
                entry.stale_until_s = min(entry.stale_until_s, ends)
        return ended

    def doubt_all(self) -> None:
        """Every key is asked about at its next call; in an outage it goes on as it would have."""
        self._forget_questions()
        for entry in self._known.values():
            entry.fresh_until_s = entry.retry_at_s = -math.inf

    def _monotonic_of(self, at: datetime | None) -> float:
        """An instant on this process's own clock; never, where there is none."""
        return math.inf if at is None else self._monotonic() + at.timestamp() - self._unix_s()

    def _forget_questions(self) -> None:
        """A call that comes now waits for no answer to a question that was sent before, nor is it refused by one."""
        self._changes += 1
        self._refused.clear()
        self._asking.clear()

    @property
    def _strict(self) -> bool:
        """Every call asks for itself: an answer to a question that was sent before it came does not count."""
        return self._settings.fresh_s == 0

    def _digest(self, key: str) -> bytes:
        keyed = self._keyed.copy()
        keyed.update(key.encode())
        return keyed.digest()

    def _ask(
        self, digest: bytes, key: str, *, endpoint: str, model: str = "", peer: str | None = None
    ) -> "asyncio.Task[Principal]":
        """One question to Unkey for any number of waiters. Raises ApiError when `peer` has asked for too much."""
        task = self._asking.get(digest)
        if task is None or self._strict:
            stranger = peer if digest not in self._known and not self._was_good(key) else None
            if stranger is None:
                asking = self._verify_in_turn(digest, key, endpoint, model)
            else:
                self._unknown_keys.check(stranger)
                asking = self._verify_stranger(digest, key, endpoint, model, stranger)
            task = self._asking[digest] = asyncio.get_running_loop().create_task(asking)
            task.add_done_callback(lambda done: self._forget_task(digest, done))
        return task

    async def _verify_in_turn(self, digest: bytes, key: str, endpoint: str, model: str) -> Principal:
        """A key that may go on without Unkey waits for its turn no longer than for an answer."""
        known = self._known.get(digest)
        may_go_on = known is not None and self._monotonic() < known.stale_until_s
        async with self._familiar.turn(within_s=self._settings.timeout_s if may_go_on else None):
            return await self._verify(digest, key, endpoint, model)

    async def _verify_stranger(self, digest: bytes, key: str, endpoint: str, model: str, peer: str) -> Principal:
        """Raises ApiError 429, too, when others from `peer` were refused while this one waited."""
        async with self._strangers.turn():
            self._unknown_keys.check(peer)
            try:
                principal = await self._verify(digest, key, endpoint, model)
            except ApiError as error:
                if error.status == 401:
                    self._unknown_keys.count_refused(peer)
                raise
            self._unknown_keys.count_good(peer)
            return principal

    def _was_good(self, key: str) -> bool:
        return self._good_keys is not None and self._good_keys.has(key)

    def _forget_task(self, digest: bytes, task: "asyncio.Task[Principal]") -> None:
        if self._asking.get(digest) is task:
            del self._asking[digest]
        if not task.cancelled():
            task.exception()  # a background renewal that failed is looked at by the next call, not by the loop

    async def _verify(self, digest: bytes, key: str, endpoint: str, model: str) -> Principal:
        known, changes = self._known.get(digest), self._changes
        verdict = await self._verifier.ask(key, endpoint=endpoint, model=model, was_good=known is not None)
        now = self._monotonic()
        refusal = verification_error(verdict, self._unix_s()) or foreign_key(verdict, self._settings.keyspace)
        if refusal is None:
            try:
                principal = await self._link(digest, verdict, now, changes)
            except ApiError as error:
                refusal = error
            else:
                if self._good_keys is not None:
                    self._good_keys.remember(key)
                return principal
        if refusal.status == 401 and self._good_keys is not None:
            self._good_keys.forget(key)
        if known is not None and has_ended(verdict, known.expires, self._unix_s()):
            self._ended.remember(digest, refusal)
        self._known.pop(digest, None)
        if changes == self._changes:
            self._refuse(digest, refusal)
        raise refusal

    def _refuse(self, digest: bytes, refusal: ApiError) -> None:
        """Remembers a refusal for a while."""
        # A limit that ends sooner than the negative cache is asked about as soon as the client was told to come back.
        wait = min(self._settings.negative_s, float(refusal.headers.get("Retry-After", math.inf)))
        self._refused[digest] = (self._monotonic() + wait, refusal)
        while len(self._refused) > self._settings.negative_max:
            self._refused.popitem(last=False)

    async def _link(self, digest: bytes, verdict: Verification, now: float, changes: int) -> Principal:
        """The user behind a valid key. Postgres being away does not end an identity that is already known."""
        key_id = verdict.key_id or ""
        external_id = verdict.identity.external_id if verdict.identity else None
        known = self._known.get(digest)
        if lacks_bounds(verdict):
            raise bounds_missing()
        limits = self._limits_told(verdict, known, now)
        # Past its expiry a key is neither fresh nor stale: Unkey is asked, and it may have been extended.
        ends = math.inf if verdict.expires is None else now + verdict.expires / 1000 - self._unix_s()
        try:
            linked = await self._accounts.identity(external_id or None, key_id)
        except DependencyDown:
            if known is None or known.principal.unkey_key_id != key_id:
                raise
            principal = known.principal
        else:
            owner = check_owner(linked, require_row=self._settings.require_row)
            self._ended.check(digest, owner.key_enabled_at)
            ends = min(ends, self._monotonic_of(owner.key_expires_at))
            told = msgspec.structs.replace(verdict, ratelimits=limits.ratelimits)
            key_limits = build_key_limits(told, owner.budgets, self._limits)
            given = verdict.permissions or ()
            principal = Principal(
                owner.user_id, owner.api_key_id, key_id, key_limits, allowed_of(given), granted_of(given)
            )
        if changes != self._changes:
            return principal  # for the calls that have waited; Postgres may have been asked before the change
        fresh = now + self._settings.fresh_s
        stale = fresh + self._settings.stale_s
        renew = now + self._settings.fresh_s * REFRESH_SHARE
        self._known[digest] = _Entry(
            principal,
            limits,
            verdict.expires,
            fresh_until_s=min(fresh, ends),
            stale_until_s=min(stale, ends),
            retry_at_s=renew,
        )
        self._known.move_to_end(digest)
        self._refused.pop(digest, None)
        while len(self._known) > self._settings.cache_max:
            self._known.popitem(last=False)
        return principal

    def _limits_told(self, verdict: Verification, known: _Entry | None, now: float) -> _Limits:
        """Those of this answer. One without any, of a key that had some, may come of a limiter that is down: Unkey
        lets such keys pass (Unkey's server source), so the last ones hold as long as a key may without Unkey."""
        if not verdict.ratelimits and known is not None and now < known.limits.until_s:
            return known.limits
        until_s = now + self._settings.fresh_s + self._settings.stale_s if verdict.ratelimits else now
        return _Limits(verdict.ratelimits, until_s)
