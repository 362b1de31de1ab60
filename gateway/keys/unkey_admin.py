"""Unkey's administration over its SDK: makes, describes, lists, changes, rerolls and deletes API keys.

Never on the hot path: the SDK is slow. The root key and the keys it makes must not appear in an error or a log:
answers are never quoted whole, and exceptions of the SDK, which hold them, are not chained.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, Final, NamedTuple, Self, TypeVar

import httpx
import msgspec
from msgspec import UNSET, UnsetType
from unkey.py import Unkey, models
from unkey.py.errors import NoResponseError, ResponseValidationError, UnkeyError
from unkey.py.types import UNSET as UNSENT
from unkey.py.utils import BackoffStrategy, RetryConfig

from gateway.keys.described import DescribedKey, KeyPage, Limit, described, unix_ms
from gateway.keys.unkey_bodies import detail_of, kind_of
from gateway.kit.errors import ConfigError, DependencyDown, OptionError

_DETAIL_MAX: Final = 300
MINUTE_MS: Final = 60_000
PAGE: Final = 100
"""Keys in a page of listKeys, its most."""
_GONE: Final = (404, 410)
"""Statuses of a key that Unkey does not know, or no longer."""
_NOT_OF_KEY: Final = ("role_not_found", "permission_not_found")
"""How the `type` of a 404 ends that is about what the key was to be given (Unkey's server source)."""
NOT_YET_S: Final = (0.1, 0.2, 0.4, 0.8, 1.5, 2.0)
"""Pauses between questions about what was just made or changed: reads go to a replica, which may be behind
(Unkey's server source)."""
YEAR_MS: Final = 365 * 24 * 3600 * 1000
OVERLAP_MS: Final = 10 * YEAR_MS
"""The longest overlap that an older server is asked for."""
RIGHTS_TO_SET: Final = "api.*.update_key, rbac.*.add_permission_to_key, .remove_permission_from_key, .create_permission"
Pause = Callable[[float], Awaitable[None]]
_GROWTH_RATIO: Final = 1.5
"""How much longer each wait between tries is than the one before."""
T = TypeVar("T")


class MadeKey(NamedTuple):
    """A key as Unkey gives it out, once."""

    key_id: str
    """Unkey's id of it; no secret."""
    secret: str
    """What the client sends as its API key; Unkey keeps only a hash of it."""
    end_moved: bool = False
    """Whether Unkey moved the end of the key in whose place this one is."""

    def __repr__(self) -> str:
        return f"MadeKey(key_id={self.key_id!r}, secret=…)"


class KeyChange(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes different at a key: UNSET stays as it is, None is cleared."""

    name: str | UnsetType | None = UNSET
    expires_at: datetime | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET
    permissions: tuple[str, ...] | UnsetType = UNSET
    """All of the key's own: what is not in here is taken away. Those of a DescribedKey are its roles' as well."""
    roles: tuple[str, ...] | UnsetType = UNSET
    ratelimits: tuple[Limit, ...] | UnsetType = UNSET
    """All of the key's own, as `permissions`; those of its identity are left out."""
    meta: dict[str, Any] | UnsetType = UNSET
    without_credits: bool = False
    """No credits are left, and none come back."""


@cache
def _trusted() -> ssl.SSLContext:
    """Whom httpx trusts; read once per process, because that takes 30 ms."""
    return httpx.create_ssl_context()


class KeyAdmin:
    """Unkey's administration. Use as an async context manager, which closes its connections.

    Every method raises ConfigError when the root key or the API id is wrong, OptionError when Unkey finds a field
    wrong, DependencyDown("unkey") when it does not answer, or not that it has done so.
    """

    def __init__(self, root_key: str, *, base_url: str, timeout_s: float = 5.0, pause: Pause = asyncio.sleep) -> None:
        """`pause` waits between two questions about what is not there yet."""
        self._pause: Final = pause
        self._root_key: Final = root_key
        # The SDK would have each of its two clients, of which one is used, read all the authorities that it trusts.
        self._clients: Final = (
            httpx.Client(follow_redirects=True, verify=_trusted()),
            httpx.AsyncClient(follow_redirects=True, verify=_trusted()),
        )
        # retry_config=None: what makes a key has no idempotency key, so a repeat could make two.
        self._sdk: Final = Unkey(
            root_key=root_key,
            server_url=base_url.rstrip("/"),
            client=self._clients[0],
            async_client=self._clients[1],
            retry_config=None,
            timeout_ms=int(timeout_s * 1000),
        )
        # All but making keys is harmless to repeat: 5xx and refused connections, for three seconds at most.
        self._again: Final = RetryConfig(
            "backoff", BackoffStrategy(100, 1000, _GROWTH_RATIO, 3000), retry_connection_errors=True
        )

    async def __aenter__(self) -> Self:
        await self._sdk.__aenter__()  # type: ignore[no-untyped-call]  # the SDK leaves these two unannotated
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._sdk.__aexit__(None, None, None)  # type: ignore[no-untyped-call]  # as above
        self._clients[0].close()
        await self._clients[1].aclose()

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
            _masked(api_id, "api.*.create_key"),
        )
        return MadeKey(answer.data.key_id, answer.data.key)

    async def describe_key(self, key_id: str) -> DescribedKey | None:
        """What Unkey holds of a key; None when it does not know it (or the root key is of another workspace)."""
        answer = await self._known(self._sdk.keys.get_key_async(key_id=key_id, decrypt=False, retries=self._again))
        return None if answer is None else described(answer.data)

    async def describe_when(self, key_id: str, is_so: Callable[[DescribedKey], bool]) -> DescribedKey | None:
        """As `describe_key`, of a key that was just made or changed: asked again for some seconds until it is so.

        Returns what was said last, None when Unkey did not know the key by then.
        """
        found = await self.describe_key(key_id)
        for pause_s in NOT_YET_S:
            if found is not None and is_so(found):
                break
            await self._pause(pause_s)
            found = await self.describe_key(key_id)
        return found

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
            _masked(api_id, "api.*.read_key and api.*.read_api"),
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
            else [_request(limit) for limit in change.ratelimits],  # not null: older servers take a list only
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

    async def add_permissions(self, key_id: str, names: Sequence[str]) -> bool:
        """Gives a key these permissions of its own; harmless to repeat. False when Unkey does not know the key."""
        if not names:
            return True
        asked = self._sdk.keys.add_permissions_async(key_id=key_id, permissions=names, retries=self._again)
        return await self._known(asked) is not None

    async def remove_permissions(self, key_id: str, names: Sequence[str]) -> bool:
        """Takes them away; what a role of the key gives stays. False when Unkey does not know the key."""
        if not names:
            return True
        asked = self._sdk.keys.remove_permissions_async(key_id=key_id, permissions=names, retries=self._again)
        return await self._known(asked) is not None

    async def reroll_key(self, key_id: str, *, ends_in_ms: int | None) -> MadeKey | None:
        """A new key with the settings and credits of this one; None when Unkey does not know it. When Unkey does not
        answer, a key that nobody knows the secret of may exist.

        The old one goes on as before, or, where a server has to be told an end (Unkey's server source), as long as it
        would have (`ends_in_ms`), rounded up to a minute, else for ten years: `end_moved`, the caller sets it back.
        """
        end_moved = False
        try:
            answer = await self._known(self._sdk.keys.reroll_key_async(key_id=key_id, expiration=None))
        except OptionError:
            overlap = OVERLAP_MS if ends_in_ms is None else max(1, min(ends_in_ms, OVERLAP_MS))
            answer = await self._known(self._sdk.keys.reroll_key_async(key_id=key_id, expiration=overlap))
            end_moved = True
        return None if answer is None else MadeKey(answer.data.key_id, answer.data.key, end_moved)

    async def delete_key(self, key_id: str) -> bool:
        """Deletes a key that was just made; False when Unkey did not know it in some seconds of asking, so that it may
        be there all the same."""
        for pause_s in (*NOT_YET_S, None):
            asked = self._sdk.keys.delete_key_async(key_id=key_id, permanent=False, retries=self._again)
            if await self._known(asked) is not None:
                return True
            if pause_s is not None:
                await self._pause(pause_s)
        return False

    async def _known(self, asked: Awaitable[T]) -> T | None:
        """The answer; None when Unkey says that it does not know the key."""
        try:
            return await asked
        except (UnkeyError, NoResponseError, httpx.HTTPError) as error:
            if (
                isinstance(error, UnkeyError)
                and error.status_code in _GONE
                and not kind_of(error.body).endswith(_NOT_OF_KEY)
            ):
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
        status, detail = error.status_code, detail_of(error.body).replace(self._root_key, "…")[:_DETAIL_MAX]
        if status in (401, 403):
            return ConfigError(f"UNKEY_ROOT_KEY is refused by Unkey ({status}): {detail}")
        if status == 404:
            return ConfigError(f"{not_found} ({detail})") if not_found else OptionError(f"Unkey: {detail}")
        if status == 429:
            wait = error.headers.get("Retry-After", "")
            return DependencyDown(
                "unkey", f"429: {detail}" + (f" (it asks to wait {wait} s)" if wait.isdigit() else "")
            )
        if status == 400:
            return OptionError(f"Unkey refuses the key: {detail}")
        return DependencyDown("unkey", f"{status}: {detail}")


def _masked(api_id: str, rights: str) -> str:
    """Unkey says "no such API" of one that the root key may not use as well (Unkey's server source)."""
    return f"UNKEY_API_ID ({api_id}) is not an API of this workspace, or UNKEY_ROOT_KEY lacks {rights}"


def _request(limit: Limit) -> models.RatelimitRequest:
    return models.RatelimitRequest(
        name=limit.name, limit=limit.limit, duration=limit.duration_ms, auto_apply=limit.auto_apply
    )
