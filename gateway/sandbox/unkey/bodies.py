"""The request bodies of the Unkey stand-in, strictly as its API takes them (Unkey's docs). Pure.

`UNSET` is a field that was not sent, which an update keeps; null clears.
"""

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.sandbox.unkey.keys import INT64_MAX, Asked, Refill

Name = Annotated[str, Meta(min_length=1, max_length=255)]
ExternalId = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9_.-]+$")]
Id = Annotated[str, Meta(min_length=1, max_length=255)]
Permission = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_:.*-]+$")]
Count = Annotated[int, Meta(ge=0, le=INT64_MAX)]
Instant = Annotated[int, Meta(ge=0, le=4_102_444_800_000)]
"""Or a length of time; Unix milliseconds, up to the year 2100."""


class _UnkeyBody(Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    pass


class LimitBody(_UnkeyBody):
    """A rate limit to set."""

    name: Annotated[str, Meta(min_length=3, max_length=128)]
    limit: Annotated[int, Meta(ge=1, le=INT64_MAX)]
    duration: Annotated[int, Meta(ge=1000, le=INT64_MAX)]
    auto_apply: bool | None = False


class Cost(_UnkeyBody):
    """How many credits a verification spends."""

    cost: Annotated[int, Meta(ge=0, le=10**12)] = 1


class Credits(_UnkeyBody):
    """A balance to set."""

    remaining: Count | None = None
    refill: Refill | None = None


class VerifyKey(_UnkeyBody):
    """keys.verifyKey."""

    key: Annotated[str, Meta(min_length=1, max_length=512)]
    tags: Annotated[list[Annotated[str, Meta(min_length=1, max_length=512)]], Meta(max_length=20)] | None = None
    permissions: Annotated[str, Meta(min_length=1, max_length=1000)] | None = None
    credits: Cost | None = None
    keyspaces: list[str] | None = None
    ratelimits: list[Asked] | None = None
    migration_id: Annotated[str, Meta(max_length=256)] | None = None


class CreateKey(_UnkeyBody):
    """keys.createKey."""

    api_id: Id
    prefix: Annotated[str, Meta(min_length=1, max_length=16)] | None = None
    name: Name | None = None
    byte_length: Annotated[int, Meta(ge=16, le=255)] | None = None
    external_id: ExternalId | None = None
    meta: dict[str, Any] | None = None
    roles: list[str] | None = None
    permissions: list[Permission] | None = None
    expires: Instant | None = None
    credits: Credits | None = None
    ratelimits: list[LimitBody] | None = None
    enabled: bool | None = None
    recoverable: bool | None = None


class UpdateKey(_UnkeyBody):
    """keys.updateKey."""

    key_id: Id
    name: Name | UnsetType | None = UNSET
    external_id: ExternalId | UnsetType | None = UNSET
    meta: dict[str, Any] | UnsetType | None = UNSET
    expires: Instant | UnsetType | None = UNSET
    credits: Credits | UnsetType | None = UNSET
    ratelimits: list[LimitBody] | UnsetType | None = UNSET
    enabled: bool | UnsetType | None = UNSET
    roles: list[str] | UnsetType | None = UNSET
    permissions: list[Permission] | UnsetType | None = UNSET


class ChangePermissions(_UnkeyBody):
    """keys.addPermissions and removePermissions; names that the key has, or has not, are no error."""

    key_id: Id
    permissions: Annotated[list[Permission], Meta(min_length=1, max_length=1000)]


class GetKey(_UnkeyBody):
    """keys.getKey."""

    key_id: Id
    decrypt: bool | None = None


class DeleteKey(_UnkeyBody):
    """keys.deleteKey."""

    key_id: Id
    permanent: bool | None = None


class RerollKey(_UnkeyBody):
    """keys.rerollKey; `expiration` is how long the old key lives on, milliseconds; null: as long as it would have."""

    key_id: Id
    expiration: Instant | None


class Whoami(_UnkeyBody):
    """keys.whoami."""

    key: Annotated[str, Meta(min_length=1, max_length=512)]


class UpdateCredits(_UnkeyBody):
    """keys.updateCredits."""

    key_id: Id
    operation: str
    value: Count | None = None


class ListKeys(_UnkeyBody):
    """apis.listKeys."""

    api_id: Id
    limit: Annotated[int, Meta(ge=1, le=100)] | None = None
    cursor: str | None = None
    external_id: str | None = None
    decrypt: bool | None = None
    revalidate_keys_cache: bool | None = None


class CreateIdentity(_UnkeyBody):
    """identities.createIdentity."""

    external_id: ExternalId
    meta: dict[str, Any] | None = None
    ratelimits: list[LimitBody] | None = None


class GetIdentity(_UnkeyBody):
    """identities.getIdentity and deleteIdentity; `identity` is an id of Unkey's or an external one."""

    identity: Id


class UpdateIdentity(_UnkeyBody):
    """identities.updateIdentity."""

    identity: Id
    meta: dict[str, Any] | None = None
    ratelimits: list[LimitBody] | None = None


class ListIdentities(_UnkeyBody):
    """identities.listIdentities."""

    limit: Annotated[int, Meta(ge=1, le=100)] | None = None
    cursor: str | None = None
