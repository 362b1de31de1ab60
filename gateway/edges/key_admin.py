"""Unkey's administration over its SDK: makes, describes, disables and deletes API keys.

Never on the hot path: the SDK is slow. The root key and the keys it makes must not appear in an error or a log:
answers are never quoted whole, and exceptions of the SDK, which hold them, are not chained. Facts: facts/unkey.md §1,
§2, §4, §5.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, Self

import httpx
import msgspec
from unkey.py import Unkey, models
from unkey.py.errors import NoResponseError, ResponseValidationError, UnkeyError
from unkey.py.utils import BackoffStrategy, RetryConfig

from gateway.core.errors import ConfigError, DependencyDown, OptionError

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DETAIL_MAX: Final = 300
MINUTE_MS: Final = 60_000
_GONE: Final = (404, 410)
"""Statuses of a key that Unkey does not know, or no longer."""


class MadeKey(NamedTuple):
    """A key as Unkey gives it out, once."""

    key_id: str
    """Unkey's id of it; no secret."""
    secret: str
    """What the client sends as its API key; Unkey keeps only a hash of it."""

    def __repr__(self) -> str:
        return f"MadeKey(key_id={self.key_id!r}, secret=…)"


class Limit(NamedTuple):
    """A rate limit that Unkey holds."""

    name: str
    limit: int
    duration_ms: int
    auto_apply: bool
    """Whether every verification counts against it."""
    of: str
    """`key`, or `identity` when all keys of the user share it."""


class DescribedKey(NamedTuple):
    """What Unkey holds of a key; nothing of its secret, not even how it begins."""

    key_id: str
    name: str | None
    enabled: bool
    external_id: str | None
    """The identity's; ours is users.id."""
    expires_at: datetime | None
    created_at: datetime
    last_used_at: datetime | None
    """Last verification, to within five minutes."""
    credits: int | None
    """What is left; None is unlimited."""
    refill: str | None
    """How the credits come back: `1000 daily`, `1000 monthly on day 5`."""
    ratelimits: tuple[Limit, ...]
    permissions: tuple[str, ...]
    roles: tuple[str, ...]


class KeyAdmin:
    """Unkey's administration. Use as an async context manager, which closes its connections."""

    def __init__(self, root_key: str, *, base_url: str, timeout_s: float = 5.0) -> None:
        self._root_key: Final = root_key
        # retry_config=None: creating a key has no idempotency key, so a repeat could make two.
        self._sdk: Final = Unkey(
            root_key=root_key, server_url=base_url.rstrip("/"), retry_config=None, timeout_ms=int(timeout_s * 1000)
        )
        # All but creating is harmless to repeat: 5xx and lost connections, for three seconds at most.
        self._again: Final = RetryConfig("backoff", BackoffStrategy(100, 1000, 1.5, 3000), retry_connection_errors=True)

    async def __aenter__(self) -> Self:
        await self._sdk.__aenter__()  # type: ignore[no-untyped-call]  # the SDK leaves these three unannotated
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._sdk.__exit__(None, None, None)  # type: ignore[no-untyped-call]  # as above; it has a sync client too
        await self._sdk.__aexit__(None, None, None)  # type: ignore[no-untyped-call]  # as above

    async def create_key(
        self,
        api_id: str,
        *,
        external_id: str,
        name: str | None,
        expires_at: datetime | None,
        permissions: Sequence[str] = (),
        per_minute: Mapping[str, int] | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> MadeKey:
        """Makes a key whose identity is `external_id` (our users.id), with rate limits by name that each verification
        counts against.

        Raises ConfigError when the root key or the API id is wrong, OptionError when Unkey finds a field wrong,
        DependencyDown("unkey") when it does not answer (a key that nobody knows the secret of may then exist).
        """
        expires_ms = None if expires_at is None else (expires_at - _EPOCH) // timedelta(milliseconds=1)
        failed: Exception
        try:
            answer = await self._sdk.keys.create_key_async(
                api_id=api_id,
                external_id=external_id,
                name=name,
                expires=expires_ms,
                permissions=list(permissions) or None,
                ratelimits=[
                    models.RatelimitRequest(name=limit, limit=most, duration=MINUTE_MS, auto_apply=True)
                    for limit, most in (per_minute or {}).items()
                ]
                or None,
                meta=dict(meta) if meta else None,
            )
            return MadeKey(answer.data.key_id, answer.data.key)
        except (UnkeyError, NoResponseError, httpx.HTTPError) as error:
            failed = self._failure(error, f"UNKEY_API_ID ({api_id}) is no API of this workspace")
        raise failed

    async def describe_key(self, key_id: str) -> DescribedKey | None:
        """What Unkey holds of a key; None when it does not know it (or the root key is of another workspace).

        Raises ConfigError when the root key is wrong, DependencyDown("unkey").
        """
        failed: Exception
        try:
            answer = await self._sdk.keys.get_key_async(key_id=key_id, decrypt=False, retries=self._again)
            return _described(answer.data)
        except (UnkeyError, NoResponseError, httpx.HTTPError) as error:
            if isinstance(error, UnkeyError) and error.status_code in _GONE:
                return None
            failed = self._failure(error, "")
        raise failed

    async def disable_key(self, key_id: str) -> bool:
        """Makes Unkey refuse a key; harmless to repeat. False when it does not know it.

        Raises ConfigError when the root key is wrong, DependencyDown("unkey") when it did not say that it has done so.
        """
        failed: Exception
        try:
            await self._sdk.keys.update_key_async(key_id=key_id, enabled=False, retries=self._again)
            return True
        except (UnkeyError, NoResponseError, httpx.HTTPError) as error:
            if isinstance(error, UnkeyError) and error.status_code in _GONE:
                return False
            failed = self._failure(error, "")
        raise failed

    async def delete_key(self, key_id: str) -> None:
        """Deletes a key; one that is gone already is no error. Raises ConfigError or DependencyDown("unkey")."""
        failed: Exception
        try:
            await self._sdk.keys.delete_key_async(key_id=key_id, permanent=False, retries=self._again)
            return
        except (UnkeyError, NoResponseError, httpx.HTTPError) as error:
            if isinstance(error, UnkeyError) and error.status_code in _GONE:
                return
            failed = self._failure(error, "")
        raise failed

    def _failure(self, error: Exception, not_found: str) -> Exception:
        """Our error for the SDK's, without anything secret in it. 429 comes as a plain APIError: status decides."""
        if not isinstance(error, UnkeyError):
            return DependencyDown("unkey", f"no answer: {type(error).__name__}")
        if isinstance(error, ResponseValidationError):
            return DependencyDown("unkey", "its answer has a form that its SDK does not know")
        status, detail = error.status_code, self._detail(error.body)
        if status in (401, 403):
            return ConfigError(f"UNKEY_ROOT_KEY is refused by Unkey ({status}): {detail}")
        if status == 404:
            return ConfigError(f"{not_found} ({detail})")
        if status == 400:
            return OptionError(f"Unkey refuses the key: {detail}")
        return DependencyDown("unkey", f"{status}: {detail}")

    def _detail(self, body: str) -> str:
        """`error.detail` of Unkey's error body, and of a 400 what each field lacks."""
        try:
            error = msgspec.json.decode(body, type=dict[str, Any])["error"]
            texts = [error["detail"], *(f"{item['location']}: {item['message']}" for item in error.get("errors") or ())]
        except (msgspec.DecodeError, LookupError, TypeError):
            return "no reason given"
        return "; ".join(map(str, texts)).replace(self._root_key, "…")[:_DETAIL_MAX]


def _described(key: models.KeyResponseData) -> DescribedKey:
    shared = key.identity.ratelimits if key.identity else None
    limits = [
        Limit(one.name, one.limit, one.duration, one.auto_apply, of)
        for of, found in (("key", key.ratelimits), ("identity", shared))
        for one in found or ()
    ]
    return DescribedKey(
        key_id=key.key_id,
        name=key.name,
        enabled=key.enabled,
        external_id=key.identity.external_id if key.identity else None,
        expires_at=_instant(key.expires),
        created_at=_EPOCH + timedelta(milliseconds=key.created_at),
        last_used_at=_instant(key.last_used_at),
        credits=key.credits.remaining if key.credits else None,
        refill=_refill(key.credits.refill if key.credits else None),
        ratelimits=tuple(limits),
        permissions=tuple(key.permissions or ()),
        roles=tuple(key.roles or ()),
    )


def _instant(unix_ms: int | None) -> datetime | None:
    return None if unix_ms is None else _EPOCH + timedelta(milliseconds=unix_ms)


def _refill(refill: models.KeyCreditsRefill | None) -> str | None:
    if refill is None:
        return None
    day = "" if refill.refill_day is None else f" on day {refill.refill_day}"
    # The SDK's enum is open: an interval that it does not know comes as the plain text.
    return f"{refill.amount} {str.__str__(refill.interval)}{day}"
