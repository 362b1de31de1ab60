"""Unkey on the hot path: one POST that verifies a key (Unkey's docs). Not the SDK, which costs 6-10 ms a call.

Says what Unkey said and nothing more; caching and refusals belong to the proxy. A key must never be logged.
"""

from collections.abc import Sequence
from typing import Any, Final

import aiohttp
import msgspec

from gateway.kit.errors import DependencyDown


class RateLimit(msgspec.Struct, rename="camel"):
    """One limit as Unkey has it on a key or an identity, or checked it just now."""

    name: str = ""
    limit: int = 0
    duration: int = 0
    """Milliseconds in which `limit` may be used."""
    auto_apply: bool = False
    """Whether each verification counts against it."""
    exceeded: bool = False
    reset: int = 0
    """Unix instant at which it begins anew, milliseconds."""
    id: str = ""


class Identity(msgspec.Struct, rename="camel"):
    """The owner of a key at Unkey."""

    external_id: str = ""
    ratelimits: list[RateLimit] | None = None
    """Of all keys of this owner together."""


class KeyMeta(msgspec.Struct):
    """What we keep at a key beside Unkey's own fields; others may keep anything there, under these names too."""

    concurrent: Any = None
    """How many calls of the key may run at the same time."""
    bound: Any = None
    """True: permissions bind the key, so an answer without them is not the whole answer."""


class Verification(msgspec.Struct, rename="camel"):
    """Unkey's answer to one verification. `valid` must be True, and `code` `VALID`, for the key to be let in."""

    valid: bool
    code: str
    key_id: str | None = None
    keyspace_id: str | None = None
    """The keyspace of the key's API (unkey.py 3.2.2); servers before it leave it out."""
    expires: int | None = None
    """Unix instant at which the key ends, milliseconds."""
    identity: Identity | None = None
    ratelimits: list[RateLimit] | None = None
    """Those that were checked: of the key, and of its identity."""
    permissions: list[str] | None = None
    """Of the key and of its roles."""
    meta: msgspec.Raw = msgspec.Raw(b"null")
    """Whatever anybody keeps at the key; ours is KeyMeta."""


class AskedTooOften(DependencyDown):
    """The workspace has sent its requests of this minute; Unkey is well."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__("unkey", f"the workspace's limit is reached; it asks to wait {retry_after_s:g} s")
        self.retry_after_s: Final = retry_after_s


class _Answer(msgspec.Struct):
    data: Verification


_decoder: Final = msgspec.json.Decoder(_Answer)
ANSWER_BYTES_MAX: Final = 256 * 1024
WAIT_S_MAX: Final = 60
"""The workspace's limit is one per minute, so there is no reason to wait longer."""


class Keys:
    """Asks Unkey. The session is closed by whoever made it."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str, root_key: str, *, timeout_s: float) -> None:
        self._session: Final = session
        self._url: Final = base_url.rstrip("/") + "/v2/keys.verifyKey"
        self.use_root_key(root_key)
        self._timeout: Final = aiohttp.ClientTimeout(total=timeout_s)

    def use_root_key(self, root_key: str) -> None:
        """Verifications from now on are asked for with this key."""
        self._headers = {"Authorization": f"Bearer {root_key}", "Content-Type": "application/json"}

    async def verify(self, key: str, tags: Sequence[str] = ()) -> Verification:
        """What Unkey says of `key`; costs no credits. `tags` (20 at most, of 1 to 512 characters) are for Unkey's
        analytics. Raises DependencyDown when it does not say anything, AskedTooOften when it asks us to wait.

        An HTTP error is never about the customer's key but about us or Unkey (Unkey's docs).
        """
        question: dict[str, object] = {"key": key, "credits": {"cost": 0}}
        if tags:
            question["tags"] = tags
        body = msgspec.json.encode(question)
        try:
            async with self._session.post(
                self._url, data=body, headers=self._headers, timeout=self._timeout, allow_redirects=False
            ) as response:
                status = response.status
                answer = b""
                # `read(n)` returns what has come so far, which need not be the whole answer.
                while len(answer) < ANSWER_BYTES_MAX and (piece := await response.content.readany()):
                    answer += piece
        except (aiohttp.ClientError, TimeoutError) as error:
            raise DependencyDown("unkey", type(error).__name__) from error
        if status == 429:
            raise AskedTooOften(_wait_s(response.headers.get("Retry-After", "")))
        if status != 200:
            raise DependencyDown("unkey", f"HTTP {status}")
        try:
            return _decoder.decode(answer).data
        except msgspec.DecodeError as error:
            raise DependencyDown("unkey", "its answer could not be read") from error


def _wait_s(retry_after: str) -> float:
    """Seconds of a Retry-After header; one second where it has none that can be used."""
    return min(max(int(retry_after), 1), WAIT_S_MAX) if retry_after.isascii() and retry_after.isdigit() else 1


_meta: Final = msgspec.json.Decoder(KeyMeta)


def meta_of(verdict: Verification) -> KeyMeta:
    """What we keep at the key; nothing where somebody else's is of another shape."""
    try:
        return _meta.decode(verdict.meta)
    except msgspec.DecodeError:
        return KeyMeta()
