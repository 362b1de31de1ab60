"""The Unkey stand-in: verifies and administers API keys as Unkey's API v2 does (Unkey's docs).

A verification always answers 200, whatever it finds. Must not know that a gateway calls it. Its HTTP is in http.py,
its control calls in routes.py, its database in store.py, the replica and caches in nodes.py.
"""

import secrets
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import Any, Final

import msgspec
from msgspec import UNSET

from gateway.sandbox.unkey import bodies
from gateway.sandbox.unkey.forms import (
    UnkeyError,
    bad,
    credits_form,
    identity_form,
    key_form,
    limits_of,
    no_such,
    not_found,
    page,
    present,
)
from gateway.sandbox.unkey.keys import INT64_MAX, Key, RateWindows, UnknownLimit, is_permitted, limits_for, refill
from gateway.sandbox.unkey.nodes import LoadedKey
from gateway.sandbox.unkey.store import UnkeyStore, digest

VERIFY: Final = "verify_key"
CREATE_PERMISSION: Final = "create_permission"
ALL_PERMISSIONS: Final = frozenset(
    {VERIFY, "create_key", "read_key", "update_key", "delete_key", "read_api"}
    | {f"{verb}_identity" for verb in ("create", "read", "update", "delete")}
    | {"add_permission_to_key", "remove_permission_from_key", CREATE_PERMISSION}
)
"""Actions that a root key may be allowed."""
MINUTE_MS: Final = 60_000


class Unkey(UnkeyStore):
    """What each endpoint does with what is stored."""

    def __init__(self, root_key: str, api_id: str, *, clock: Callable[[], float]) -> None:
        """`clock` gives Unix seconds."""
        super().__init__(clock)
        self.root_key: Final = root_key
        self.permissions = ALL_PERMISSIONS
        """What the root key may do; a test takes away."""
        self.apis: Final = {api_id}
        self._counters: Final = RateWindows()

    def verify_key(self, body: bodies.VerifyKey) -> dict[str, Any]:
        """POST /v2/keys.verifyKey. Spends rate limits and credits only when everything before them holds."""
        found = self.look_up(body.key)
        if found is None or VERIFY not in self.permissions:
            return {"valid": False, "code": "NOT_FOUND"}
        key, identity, permissions = found
        code, ratelimits = self._judge(found, body)
        live = self.kept.keys.get(key.key_id, key)  # credits are counted elsewhere, and never from a cache
        live.last_used_at = self.now_ms()
        shown = body.permissions is not None or not self.mode.permissions_hidden
        return present(
            {
                "valid": code == "VALID",
                "code": code,
                "keyId": key.key_id,
                "keyspaceId": f"ks_{key.api_id.removeprefix('api_')}",
                "name": key.name,
                "meta": key.meta,
                "expires": key.expires,
                "credits": live.remaining,
                "enabled": key.enabled,
                "permissions": (permissions or None) if shown else None,
                "roles": (key.roles or None) if shown else None,
                "identity": None if identity is None else identity_form(identity, key.ratelimits),
                "ratelimits": ratelimits or None,
            }
        )

    def _judge(self, found: LoadedKey, body: bodies.VerifyKey) -> tuple[str, list[dict[str, Any]]]:
        key, identity, permissions = found
        now = self.now_ms()
        if not key.enabled:
            return "DISABLED", []
        if key.expires is not None and now >= key.expires:
            return "EXPIRED", []
        if body.permissions is not None:
            try:
                if not is_permitted(body.permissions, permissions):
                    return "INSUFFICIENT_PERMISSIONS", []
            except ValueError:
                raise bad("permissions", "is not a query of permissions") from None
        try:
            limits = limits_for(key, identity, body.ratelimits or [])
        except UnknownLimit as unknown:
            detail = f"Ratelimit '{unknown}' was requested but does not exist for this key or its identity."
            raise UnkeyError(412, "Precondition Failed", detail) from None
        allowed, seen = (True, []) if self.mode.limiter_down else self._counters.check(limits, now)
        if not allowed:
            return "RATE_LIMITED", seen
        cost = 1 if body.credits is None else body.credits.cost
        live = self.kept.keys.get(key.key_id, key)
        refill(live, now)
        if live.remaining is not None:
            if cost > live.remaining:
                return "USAGE_EXCEEDED", seen
            live.remaining -= cost
        return "VALID", seen

    def create_key(self, body: bodies.CreateKey) -> dict[str, Any]:
        """POST /v2/keys.createKey."""
        self._api(body.api_id)
        self._known_roles(body.roles or ())
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
        """A key with a secret of the caller's choice, as a fixture; its identity and roles are made when new."""
        now = self.now_ms()
        key = Key(key_id or f"key_{secrets.token_hex(8)}", api_id, digest(secret), secret[:4], now, **fields)
        key.refilled_at = now
        self.identities.of(key.external_id)
        for role in key.roles:
            self.kept.roles.setdefault(role, [])
        return self.insert_key(key)

    def update_key(self, body: bodies.UpdateKey, *, in_dashboard: bool = False) -> dict[str, Any]:
        """POST /v2/keys.updateKey: what was not sent stays, null clears. The dashboard's changes clear no node."""
        if self.mode.strict_nulls and body.ratelimits is None:
            raise bad("ratelimits", "got null, want array")
        self._known_roles(() if body.roles is UNSET else body.roles or ())
        with self.change_key(body.key_id, clears=not in_dashboard) as key:
            for name in ("name", "external_id", "meta", "expires"):
                value = getattr(body, name)
                if value is not UNSET:
                    setattr(key, name, value)
            self.identities.of(key.external_id)
            if isinstance(body.enabled, bool):
                key.enabled = body.enabled
            for name in ("roles", "permissions"):
                value = getattr(body, name)
                if value is not UNSET:
                    setattr(key, name, value or [])
            if body.ratelimits is not UNSET:
                key.ratelimits = limits_of(body.ratelimits, key.ratelimits)
            if body.credits is not UNSET:
                balance = body.credits or bodies.Credits()
                key.remaining, key.refill, key.refilled_at = balance.remaining, balance.refill, self.now_ms()
            key.updated_at = self.now_ms()
        return {}

    def add_permissions(self, body: bodies.ChangePermissions) -> list[Any]:
        """POST /v2/keys.addPermissions: to the key itself; a name that is new to the workspace takes a right."""
        with self.change_key(body.key_id) as key:
            if not set(body.permissions) <= self.names() and CREATE_PERMISSION not in self.permissions:
                raise UnkeyError(403, "Forbidden", "Missing permission: 'rbac.*.create_permission'")
            key.permissions = list(dict.fromkeys([*key.permissions, *body.permissions]))
            self.kept.permissions.update(body.permissions)
        return [_permission(name) for name in key.permissions]

    def remove_permissions(self, body: bodies.ChangePermissions) -> list[Any]:
        """POST /v2/keys.removePermissions: from the key itself; what its roles give it stays."""
        with self.change_key(body.key_id) as key:
            for name in body.permissions:
                if name not in self.names():
                    raise no_such("Permission", name)
            self.kept.permissions.update(body.permissions)
            key.permissions = [name for name in key.permissions if name not in body.permissions]
        return [_permission(name) for name in key.permissions]

    def get_key(self, body: bodies.GetKey) -> dict[str, Any]:
        """POST /v2/keys.getKey."""
        return self._describe_key(self.find(body.key_id))

    def whoami(self, body: bodies.Whoami) -> dict[str, Any]:
        """POST /v2/keys.whoami."""
        return self._describe_key(self.find(self.ids.get(digest(body.key), "")))

    def delete_key(self, body: bodies.DeleteKey, *, in_dashboard: bool = False) -> dict[str, Any]:
        """POST /v2/keys.deleteKey."""
        with self.change_key(body.key_id, clears=not in_dashboard):
            del self.kept.keys[body.key_id]
        return {}

    def reroll_key(self, body: bodies.RerollKey) -> dict[str, Any]:
        """POST /v2/keys.rerollKey: a new key with the old one's remaining credits; the old one may end later, at the
        end of a minute. No node forgets the old one for it.
        """
        if self.mode.strict_nulls and body.expiration is None:
            raise bad("expiration", "got null, want integer")
        now = self.now_ms()
        with self.change_key(body.key_id, clears=False) as old:
            secret = secrets.token_urlsafe(16)
            fields = {name: getattr(old, name) for name in old.__struct_fields__}
            fields |= {"key_id": f"key_{secrets.token_hex(8)}", "digest": digest(secret), "start": secret[:4]}
            limits = [msgspec.structs.replace(limit, id=f"rl_{secrets.token_hex(8)}") for limit in old.ratelimits]
            fields |= {"created_at": now, "updated_at": None, "last_used_at": None, "ratelimits": limits}
            key = self.insert_key(Key(**fields))
            if body.expiration is not None:
                ends = now + body.expiration
                old.expires = -(-ends // MINUTE_MS) * MINUTE_MS if body.expiration else now
        return {"keyId": key.key_id, "key": secret}

    def update_credits(self, body: bodies.UpdateCredits) -> dict[str, Any]:
        """POST /v2/keys.updateCredits: a decrement stops at 0; null makes the key unlimited and ends its refill."""
        with self.change_key(body.key_id) as key:
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
        own = [key for key in map(self.find_key, list(self.kept.keys)) if key is not None and key.api_id == body.api_id]
        own = [key for key in own if body.external_id in (None, key.external_id)]
        found, cursor = page(own, lambda key: key.key_id, body.limit, body.cursor)
        return [self._describe_key(key) for key in found], cursor

    def _api(self, api_id: str) -> None:
        if api_id not in self.apis:
            raise not_found("API")

    def _known_roles(self, roles: Iterable[str]) -> None:
        for role in roles:
            if role not in self.kept.roles:
                raise no_such("Role", role)

    def _describe_key(self, key: Key) -> dict[str, Any]:
        return key_form(key, self.kept.identities.get(key.external_id or ""), self.permissions_of(key))


def _permission(name: str) -> dict[str, str]:
    return {"id": f"perm_{sha256(name.encode()).hexdigest()[:16]}", "name": name, "slug": name}
