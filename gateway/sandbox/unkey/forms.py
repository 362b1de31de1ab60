"""How the Unkey stand-in words things: keys, identities and limits as its answers show them, and its refusals. Pure."""

import secrets
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

import msgspec

from gateway.sandbox.unkey.bodies import LimitBody
from gateway.sandbox.unkey.keys import Key, NamedLimit, StoredIdentity

PAGE: Final = 100
T = TypeVar("T")


class UnkeyError(Exception):
    """A request that Unkey answers with an error."""

    def __init__(
        self, status: int, title: str, detail: str, errors: list[dict[str, str]] | None = None, *, code: str = ""
    ) -> None:
        super().__init__(detail)
        self.status: Final = status
        self.title: Final = title
        self.detail: Final = detail
        self.errors: Final = errors
        self.code: Final = code or title.lower().replace(" ", "_")
        """The end of its `type`."""


def bad(location: str, message: str) -> UnkeyError:
    """400; without `errors` the SDK could not read it (Unkey's docs)."""
    return UnkeyError(
        400, "Bad Request", f"{location} {message}", [{"location": f"body.{location}", "message": message}]
    )


def not_found(what: str) -> UnkeyError:
    """404."""
    code = f"unkey/data/{what.lower()}_not_found"
    return UnkeyError(404, "Not Found", f"The requested {what} does not exist or has been deleted.", code=code)


def no_such(what: str, name: str) -> UnkeyError:
    """404 of something that a key was to be given, or to lose."""
    return UnkeyError(404, "Not Found", f"{what} '{name}' was not found.", code=f"unkey/data/{what.lower()}_not_found")


def present(fields: dict[str, Any]) -> dict[str, Any]:
    """Without what is None: Unkey leaves it out."""
    return {name: value for name, value in fields.items() if value is not None}


def limits_of(given: list[LimitBody] | None, before: Iterable[NamedLimit] = ()) -> list[NamedLimit]:
    """Rate limits as they are kept, each with an id that no other has; one that was there `before` keeps its own."""
    ids = {limit.name: limit.id for limit in before}
    return [
        NamedLimit(
            limit.name,
            limit.limit,
            limit.duration,
            ids.get(limit.name) or f"rl_{secrets.token_hex(8)}",
            bool(limit.auto_apply),
        )
        for limit in given or ()
    ]


def limit_form(limit: NamedLimit) -> dict[str, Any]:
    """A rate limit that is set."""
    return {
        "id": limit.id,
        "name": limit.name,
        "limit": limit.limit,
        "duration": limit.duration,
        "autoApply": limit.auto_apply,
    }


def identity_form(identity: StoredIdentity, hidden: Iterable[NamedLimit] = ()) -> dict[str, Any]:
    """An identity. A verification leaves out the limits whose names its key has too (`hidden`)."""
    names = {limit.name for limit in hidden}
    limits = [limit_form(limit) for limit in identity.ratelimits if limit.name not in names] or None
    fields = {"id": identity.id, "externalId": identity.external_id, "meta": identity.meta, "ratelimits": limits}
    return present(fields)


def credits_form(key: Key) -> dict[str, Any]:
    """A key's balance; `remaining` is null when it is unlimited."""
    refill = None if key.refill is None else msgspec.to_builtins(key.refill)
    return {"remaining": key.remaining} | ({} if refill is None else {"refill": refill})


def key_form(key: Key, identity: StoredIdentity | None, permissions: list[str]) -> dict[str, Any]:
    """A key, never its secret. `permissions` are its own and those of its roles, without saying which is which."""
    return present(
        {
            "keyId": key.key_id,
            "start": key.start,
            "enabled": key.enabled,
            "createdAt": key.created_at,
            "name": key.name,
            "meta": key.meta,
            "updatedAt": key.updated_at,
            "lastUsedAt": key.last_used_at,
            "expires": key.expires,
            "permissions": list(dict.fromkeys(permissions)) or None,
            "roles": key.roles or None,
            "credits": None if key.remaining is None else credits_form(key),
            "identity": None if identity is None else identity_form(identity),
            "ratelimits": [limit_form(limit) for limit in key.ratelimits] or None,
        }
    )


def page(
    items: list[T], id_of: Callable[[T], str], limit: int | None, cursor: str | None
) -> tuple[list[T], str | None]:
    """The items from the one that `cursor` names on, and the cursor of the next page."""
    ids = [id_of(item) for item in items]
    start = ids.index(cursor) if cursor in ids else 0
    end = start + (limit or PAGE)
    return items[start:end], ids[end] if end < len(ids) else None
