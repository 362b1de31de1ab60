"""The Unkey stand-in: verifies and administers API keys as Unkey's API v2 does (facts/unkey.md §3-§7).

A verification always answers 200, whatever it finds. Must not know that a gateway calls it. Its HTTP and its control
calls are in `unkey_control`.
"""

import secrets
from collections.abc import Callable
from hashlib import sha256
from typing import Any, Final

import msgspec
from msgspec import UNSET

from gateway.sandbox import unkey_bodies as bodies
from gateway.sandbox.unkey_forms import (
    Refused,
    bad,
    credits_form,
    identity_form,
    key_form,
    limits_of,
    not_found,
    page,
    present,
)
from gateway.sandbox.unkey_keys import (
    INT64_MAX,
    Counters,
    Identity,
    Key,
    UnknownLimit,
    limits_for,
    permitted,
    refill,
)

VERIFY: Final = "verify_key"
ALL_PERMISSIONS: Final = frozenset(
    {VERIFY, "create_key", "read_key", "update_key", "delete_key"}
    | {f"{verb}_identity" for verb in ("create", "read", "update", "delete")}
)
"""Actions that a root key may be allowed."""


class Kept(msgspec.Struct):
    """Everything that outlives a restart."""

    keys: dict[str, Key] = {}
    identities: dict[str, Identity] = {}
    """By external id."""


class Unkey:
    """The stand-in's state and what each endpoint does with it."""

    def __init__(self, root_key: str, api_id: str, *, clock: Callable[[], float]) -> None:
        """`clock` gives Unix seconds."""
        self.root_key: Final = root_key
        self.permissions = ALL_PERMISSIONS
        """What the root key may do; a test takes away."""
        self.apis: Final = {api_id}
        self.kept = Kept()
        self._clock: Final = clock
        self._counters: Final = Counters()
        self._by_digest: dict[str, Key] = {}

    def load(self, kept: Kept) -> None:
        """Takes over the keys of an earlier run."""
        self.kept = kept
        self._by_digest = {key.digest: key for key in kept.keys.values()}

    def verify_key(self, body: bodies.VerifyKey) -> dict[str, Any]:
        """POST /v2/keys.verifyKey. Spends rate limits and credits only when everything before them holds."""
        key = self._by_digest.get(_digest(body.key))
        if key is None or VERIFY not in self.permissions:
            return {"valid": False, "code": "NOT_FOUND"}
        now = self._now_ms()
        refill(key, now)
        identity = self.kept.identities.get(key.external_id or "")
        code, ratelimits = self._judge(key, identity, body, now)
        key.last_used_at = now
        return present(
            {
                "valid": code == "VALID",
                "code": code,
                "keyId": key.key_id,
                "keyspaceId": f"ks_{key.api_id.removeprefix('api_')}",
                "name": key.name,
                "meta": key.meta,
                "expires": key.expires,
                "credits": key.remaining,
                "enabled": key.enabled,
                "permissions": key.permissions or None,
                "roles": key.roles or None,
                "identity": None if identity is None else identity_form(identity),
                "ratelimits": ratelimits or None,
            }
        )

    def _judge(
        self, key: Key, identity: Identity | None, body: bodies.VerifyKey, now: int
    ) -> tuple[str, list[dict[str, Any]]]:
        if not key.enabled:
            return "DISABLED", []
        if key.expires is not None and now >= key.expires:
            return "EXPIRED", []
        if body.permissions is not None:
            try:
                if not permitted(body.permissions, key.permissions):
                    return "INSUFFICIENT_PERMISSIONS", []
            except ValueError:
                raise bad("permissions", "is no query of permissions") from None
        try:
            limits = limits_for(key, identity, body.ratelimits or [])
        except UnknownLimit as unknown:
            detail = f"Ratelimit '{unknown}' was requested but does not exist for this key or its identity."
            raise Refused(412, "Precondition Failed", detail) from None
        allowed, seen = self._counters.check(key.key_id, limits, now)
        if not allowed:
            return "RATE_LIMITED", seen
        cost = 1 if body.credits is None else body.credits.cost
        if key.remaining is not None:
            if cost > key.remaining:
                return "USAGE_EXCEEDED", seen
            key.remaining -= cost
        return "VALID", seen

    def create_key(self, body: bodies.CreateKey) -> dict[str, Any]:
        """POST /v2/keys.createKey."""
        self._api(body.api_id)
        secret = (f"{body.prefix}_" if body.prefix else "") + secrets.token_urlsafe(body.byte_length or 16)
        balance = body.credits or bodies.Credits()
        key = self.add_key(
            secret,
            api_id=body.api_id,
            name=body.name,
            external_id=body.external_id,
            expires=body.expires,
            meta=body.meta,
            enabled=body.enabled is not False,
            remaining=balance.remaining,
            refill=balance.refill,
            permissions=body.permissions or [],
            roles=body.roles or [],
            ratelimits=limits_of(body.ratelimits),
        )
        return {"keyId": key.key_id, "key": secret}

    def add_key(self, secret: str, *, api_id: str, key_id: str | None = None, **fields: Any) -> Key:
        """A key with a secret of the caller's choice, as a fixture; its identity is made when it is new."""
        now = self._now_ms()
        key = Key(key_id or f"key_{secrets.token_hex(8)}", api_id, _digest(secret), secret[:4], now, **fields)
        key.refilled_at = now
        self._identify(key.external_id)
        self.kept.keys[key.key_id] = self._by_digest[key.digest] = key
        return key

    def update_key(self, body: bodies.UpdateKey) -> dict[str, Any]:
        """POST /v2/keys.updateKey: what was not sent stays, null clears."""
        key = self._key(body.key_id)
        for name in ("name", "external_id", "meta", "expires"):
            value = getattr(body, name)
            if value is not UNSET:
                setattr(key, name, value)
        self._identify(key.external_id)
        if isinstance(body.enabled, bool):
            key.enabled = body.enabled
        for name in ("roles", "permissions"):
            value = getattr(body, name)
            if value is not UNSET:
                setattr(key, name, value or [])
        if body.ratelimits is not UNSET:
            key.ratelimits = limits_of(body.ratelimits)
        if body.credits is not UNSET:
            balance = body.credits or bodies.Credits()
            key.remaining, key.refill, key.refilled_at = balance.remaining, balance.refill, self._now_ms()
        key.updated_at = self._now_ms()
        return {}

    def get_key(self, body: bodies.GetKey) -> dict[str, Any]:
        """POST /v2/keys.getKey."""
        return self._described(self._key(body.key_id))

    def whoami(self, body: bodies.Whoami) -> dict[str, Any]:
        """POST /v2/keys.whoami."""
        key = self._by_digest.get(_digest(body.key))
        if key is None:
            raise not_found("key")
        return self._described(key)

    def delete_key(self, body: bodies.DeleteKey) -> dict[str, Any]:
        """POST /v2/keys.deleteKey."""
        key = self._key(body.key_id)
        del self.kept.keys[key.key_id]
        del self._by_digest[key.digest]
        return {}

    def reroll_key(self, body: bodies.RerollKey) -> dict[str, Any]:
        """POST /v2/keys.rerollKey: a new key with the old one's remaining credits; the old one may end later."""
        old = self._key(body.key_id)
        now = self._now_ms()
        secret = secrets.token_urlsafe(16)
        fields = {name: getattr(old, name) for name in old.__struct_fields__}
        fields |= {"key_id": f"key_{secrets.token_hex(8)}", "digest": _digest(secret), "start": secret[:4]}
        key = Key(**fields | {"created_at": now, "updated_at": None, "last_used_at": None})
        self.kept.keys[key.key_id] = self._by_digest[key.digest] = key
        old.expires = old.expires if body.expiration is None else now + body.expiration
        return {"keyId": key.key_id, "key": secret}

    def update_credits(self, body: bodies.UpdateCredits) -> dict[str, Any]:
        """POST /v2/keys.updateCredits: a decrement stops at 0; null makes the key unlimited and ends its refill."""
        key = self._key(body.key_id)
        if body.operation == "set":
            key.remaining = body.value
            key.refill = None if body.value is None else key.refill
        elif body.operation not in ("increment", "decrement") or body.value is None:
            raise bad("operation", "must be set, or increment or decrement with a value")
        elif key.remaining is None:
            raise bad("keyId", "has unlimited credits, which cannot be incremented or decremented")
        else:
            change = body.value if body.operation == "increment" else -body.value
            key.remaining = min(INT64_MAX, max(0, key.remaining + change))
        return credits_form(key)

    def list_keys(self, body: bodies.ListKeys) -> tuple[list[Any], str | None]:
        """POST /v2/apis.listKeys: one page and the cursor of the next."""
        self._api(body.api_id)
        own = [key for key in self.kept.keys.values() if key.api_id == body.api_id]
        own = [key for key in own if body.external_id in (None, key.external_id)]
        found, cursor = page(own, lambda key: key.key_id, body.limit, body.cursor)
        return [self._described(key) for key in found], cursor

    def create_identity(self, body: bodies.CreateIdentity) -> dict[str, Any]:
        """POST /v2/identities.createIdentity."""
        if body.external_id in self.kept.identities:
            raise Refused(409, "Conflict", f"Identity with externalId '{body.external_id}' already exists.")
        identity = self._identify(body.external_id)
        assert identity is not None
        identity.meta, identity.ratelimits = body.meta, limits_of(body.ratelimits)
        return {"identityId": identity.id}

    def get_identity(self, body: bodies.GetIdentity) -> dict[str, Any]:
        """POST /v2/identities.getIdentity."""
        return identity_form(self._identity(body.identity))

    def update_identity(self, body: bodies.UpdateIdentity) -> dict[str, Any]:
        """POST /v2/identities.updateIdentity."""
        identity = self._identity(body.identity)
        identity.meta = identity.meta if body.meta is None else body.meta
        identity.ratelimits = identity.ratelimits if body.ratelimits is None else limits_of(body.ratelimits)
        return identity_form(identity)

    def delete_identity(self, body: bodies.GetIdentity) -> dict[str, Any]:
        """POST /v2/identities.deleteIdentity; keys stay, without an owner."""
        identity = self._identity(body.identity)
        del self.kept.identities[identity.external_id]
        for key in self.kept.keys.values():
            key.external_id = None if key.external_id == identity.external_id else key.external_id
        return {}

    def list_identities(self, body: bodies.ListIdentities) -> tuple[list[Any], str | None]:
        """POST /v2/identities.listIdentities: one page and the cursor of the next."""
        found, cursor = page([*self.kept.identities.values()], lambda it: it.id, body.limit, body.cursor)
        return [identity_form(identity) for identity in found], cursor

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    def _api(self, api_id: str) -> None:
        if api_id not in self.apis:
            raise not_found("API")

    def _key(self, key_id: str) -> Key:
        key = self.kept.keys.get(key_id)
        if key is None:
            raise not_found("key")
        refill(key, self._now_ms())
        return key

    def _identity(self, name: str) -> Identity:
        for identity in self.kept.identities.values():
            if name in (identity.id, identity.external_id):
                return identity
        raise not_found("identity")

    def _identify(self, external_id: str | None) -> Identity | None:
        """The identity of this external id, made when it is new."""
        if external_id is None:
            return None
        if external_id not in self.kept.identities:
            self.kept.identities[external_id] = Identity(f"id_{secrets.token_hex(8)}", external_id)
        return self.kept.identities[external_id]

    def _described(self, key: Key) -> dict[str, Any]:
        return key_form(key, self.kept.identities.get(key.external_id or ""))


def _digest(secret: str) -> str:
    return sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
