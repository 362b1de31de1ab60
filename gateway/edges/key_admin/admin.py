"""Unkey's administration over its SDK: makes, describes, lists, changes, rerolls and deletes API keys.

Never on the hot path: the SDK is slow. The root key and the keys it makes must not appear in an error or a log:
answers are never quoted whole, and exceptions of the SDK, which hold them, are not chained. Facts: facts/unkey.md §1,
§2, §4, §5.
"""

from collections.abc import Awaitable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, Self, TypeVar

import httpx
import msgspec
from msgspec import UNSET, UnsetType
from unkey.py import Unkey, models
from unkey.py.errors import NoResponseError, ResponseValidationError, UnkeyError
from unkey.py.types import UNSET as UNSENT
from unkey.py.utils import BackoffStrategy, RetryConfig

from gateway.core.errors import ConfigError, DependencyDown, OptionError
from gateway.edges.key_admin.described import DescribedKey, KeyPage, Limit, described, unix_ms

_DETAIL_MAX: Final = 300
MINUTE_MS: Final = 60_000
PAGE: Final = 100
"""Keys in a page of listKeys, its most."""
_GONE: Final = (404, 410)
"""Statuses of a key that Unkey does not know, or no longer."""
T = TypeVar("T")


class MadeKey(NamedTuple):
    """A key as Unkey gives it out, once."""

    key_id: str
    """Unkey's id of it; no secret."""
    secret: str
    """What the client sends as its API key; Unkey keeps only a hash of it."""

    def __repr__(self) -> str:
        return f"MadeKey(key_id={self.key_id!r}, secret=…)"


class KeyChange(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes different at a key: UNSET stays as it is, None is cleared."""

    name: str | UnsetType | None = UNSET
    expires_at: datetime | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET
    permissions: tuple[str, ...] | UnsetType = UNSET
    """All of them: what is not in here is taken away."""
    roles: tuple[str, ...] | UnsetType = UNSET
    ratelimits: tuple[Limit, ...] | UnsetType = UNSET
    """All of the key's own, as `permissions`; those of its identity are left out."""
    meta: dict[str, Any] | UnsetType = UNSET
    without_credits: bool = False
    """No credits are left, and none come back."""


class KeyAdmin:
    """Unkey's administration. Use as an async context manager, which closes its connections.

    Every method raises ConfigError when the root key or the API id is wrong, OptionError when Unkey finds a field
    wrong, DependencyDown("unkey") when it does not answer, or not that it has done so.
    """

    def __init__(self, root_key: str, *, base_url: str, timeout_s: float = 5.0) -> None:
        self._root_key: Final = root_key
        # retry_config=None: what makes a key has no idempotency key, so a repeat could make two.
        self._sdk: Final = Unkey(
            root_key=root_key, server_url=base_url.rstrip("/"), retry_config=None, timeout_ms=int(timeout_s * 1000)
        )
        # All but making keys is harmless to repeat: 5xx and refused connections, for three seconds at most.
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
        prefix: str | None = None,
    ) -> MadeKey:
        """Makes a key whose identity is `external_id` (our users.id), with rate limits by name that each verification
        counts against. When Unkey does not answer, a key that nobody knows the secret of may exist.
        """
        answer = await self._found(
            self._sdk.keys.create_key_async(
                api_id=api_id,
                external_id=external_id,
                name=name,
                expires=unix_ms(expires_at),
                permissions=list(permissions) or None,
                ratelimits=[
                    models.RatelimitRequest(name=limit, limit=most, duration=MINUTE_MS, auto_apply=True)
                    for limit, most in (per_minute or {}).items()
                ]
                or None,
                meta=dict(meta) if meta else None,
                prefix=prefix,
            ),
            f"UNKEY_API_ID ({api_id}) is no API of this workspace",
        )
        return MadeKey(answer.data.key_id, answer.data.key)

    async def describe_key(self, key_id: str) -> DescribedKey | None:
        """What Unkey holds of a key; None when it does not know it (or the root key is of another workspace)."""
        answer = await self._known(self._sdk.keys.get_key_async(key_id=key_id, decrypt=False, retries=self._again))
        return None if answer is None else described(answer.data)

    async def keys_page(
        self, api_id: str, *, cursor: str | None = None, external_id: str | None = None, limit: int = PAGE
    ) -> KeyPage:
        """Keys of an API from `cursor` (of the page before) on, at most `limit`; only those of one identity if given.

        A key that is made or deleted while pages are turned may be missing, or come twice.
        """
        answer = await self._found(
            self._sdk.apis.list_keys_async(
                api_id=api_id, limit=limit, cursor=cursor, external_id=external_id, retries=self._again
            ),
            f"UNKEY_API_ID ({api_id}) is no API of this workspace",
        )
        if answer is None:
            raise DependencyDown("unkey", "it answered without a page of keys")
        more = answer.result.pagination
        return KeyPage([described(key) for key in answer.result.data], more.cursor if more.has_more else None)

    async def update_key(self, key_id: str, change: KeyChange) -> bool:
        """Changes a key; harmless to repeat. False when Unkey does not know it."""
        fields: dict[str, Any] = {
            "name": UNSENT if change.name is UNSET else change.name,
            "expires": UNSENT if change.expires_at is UNSET else unix_ms(change.expires_at),
            "meta": UNSENT if change.meta is UNSET else change.meta or None,
            "ratelimits": UNSENT
            if change.ratelimits is UNSET
            else [_request(limit) for limit in change.ratelimits] or None,
            "credits": models.UpdateKeyCreditsData(remaining=0, refill=None) if change.without_credits else UNSENT,
        }
        for name in ("enabled", "permissions", "roles"):  # the SDK leaves None out: they cannot be cleared, only empty
            value = getattr(change, name)
            fields[name] = None if value is UNSET else value
        asked = self._sdk.keys.update_key_async(key_id=key_id, **fields, retries=self._again)
        return await self._known(asked) is not None

    async def set_credits(self, key_id: str, remaining: int) -> bool:
        """Sets what is left of a key's credits; harmless to repeat. False when Unkey does not know the key."""
        asked = self._sdk.keys.update_credits_async(
            key_id=key_id, operation=models.Operation.SET, value=remaining, retries=self._again
        )
        return await self._known(asked) is not None

    async def reroll_key(self, key_id: str) -> MadeKey | None:
        """A new key with the settings and credits of this one, which goes on as before; None when Unkey does not know
        it. When Unkey does not answer, a key that nobody knows the secret of may exist.
        """
        answer = await self._known(self._sdk.keys.reroll_key_async(key_id=key_id, expiration=None))
        return None if answer is None else MadeKey(answer.data.key_id, answer.data.key)

    async def delete_key(self, key_id: str) -> None:
        """Deletes a key; one that is gone already is no error."""
        await self._known(self._sdk.keys.delete_key_async(key_id=key_id, permanent=False, retries=self._again))

    async def _known(self, asked: Awaitable[T]) -> T | None:
        """The answer; None when Unkey says that it does not know the key."""
        try:
            return await asked
        except (UnkeyError, NoResponseError, httpx.HTTPError) as error:
            if isinstance(error, UnkeyError) and error.status_code in _GONE:
                return None
            failed = self._failure(error, "")
        raise failed  # here, not in the handler: the SDK's error must not hang on it

    async def _found(self, asked: Awaitable[T], not_found: str) -> T:
        """The answer; ConfigError with `not_found` when Unkey says 404."""
        try:
            return await asked
        except (UnkeyError, NoResponseError, httpx.HTTPError) as error:
            failed = self._failure(error, not_found)
        raise failed  # as above

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


def _request(limit: Limit) -> models.RatelimitRequest:
    return models.RatelimitRequest(
        name=limit.name, limit=limit.limit, duration=limit.duration_ms, auto_apply=limit.auto_apply
    )
