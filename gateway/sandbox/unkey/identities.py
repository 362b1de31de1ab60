"""The identities of the Unkey stand-in: whom keys belong to, and limits that all keys of one share.

A change here clears no node's cache of keys, as in Unkey's server source.
"""

import secrets
from collections.abc import Callable
from typing import Any, Final

from gateway.sandbox.unkey import bodies
from gateway.sandbox.unkey.forms import UnkeyError, identity_form, limits_of, not_found, page
from gateway.sandbox.unkey.keys import StoredIdentity, UnkeyState


class Identities:
    """What each endpoint of identities does."""

    def __init__(self, kept: Callable[[], UnkeyState]) -> None:
        self._kept: Final = kept

    def of(self, external_id: str | None) -> StoredIdentity | None:
        """The identity of this external id, made when it is new."""
        if external_id is None:
            return None
        identities = self._kept().identities
        if external_id not in identities:
            identities[external_id] = StoredIdentity(f"id_{secrets.token_hex(8)}", external_id)
        return identities[external_id]

    def create_identity(self, body: bodies.CreateIdentity) -> dict[str, Any]:
        """POST /v2/identities.createIdentity."""
        if body.external_id in self._kept().identities:
            raise UnkeyError(409, "Conflict", f"Identity with externalId '{body.external_id}' already exists.")
        identity = self.of(body.external_id)
        assert identity is not None
        identity.meta, identity.ratelimits = body.meta, limits_of(body.ratelimits)
        return {"identityId": identity.id}

    def get_identity(self, body: bodies.GetIdentity) -> dict[str, Any]:
        """POST /v2/identities.getIdentity."""
        return identity_form(self._find(body.identity))

    def update_identity(self, body: bodies.UpdateIdentity) -> dict[str, Any]:
        """POST /v2/identities.updateIdentity."""
        identity = self._find(body.identity)
        identity.meta = identity.meta if body.meta is None else body.meta
        if body.ratelimits is not None:
            identity.ratelimits = limits_of(body.ratelimits, identity.ratelimits)
        return identity_form(identity)

    def delete_identity(self, body: bodies.GetIdentity) -> dict[str, Any]:
        """POST /v2/identities.deleteIdentity; keys stay, without an owner."""
        identity = self._find(body.identity)
        del self._kept().identities[identity.external_id]
        for key in self._kept().keys.values():
            key.external_id = None if key.external_id == identity.external_id else key.external_id
        return {}

    def list_identities(self, body: bodies.ListIdentities) -> tuple[list[Any], str | None]:
        """POST /v2/identities.listIdentities: one page and the cursor of the next."""
        found, cursor = page([*self._kept().identities.values()], lambda it: it.id, body.limit, body.cursor)
        return [identity_form(identity) for identity in found], cursor

    def _find(self, name: str) -> StoredIdentity:
        for identity in self._kept().identities.values():
            if name in (identity.id, identity.external_id):
                return identity
        raise not_found("identity")
