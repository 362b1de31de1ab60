"""What users' calls would share at OpenAI, because all of them use the operator's one account, and what each user has
of its own instead: idempotency keys and, by setting, prompt caches and safety identifiers. Pure.

The same user and the same value give the same name, so OpenAI does for the client what it would have done. Nobody can
find a value that gives another user's name, nor read a user's id or value from one.
"""

from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from typing import Final

IDEMPOTENCY_KEY: Final = "idempotency-key"
NAME_BYTES: Final = 16
_LABELS: Final = {IDEMPOTENCY_KEY: "idempotency", "prompt_cache_key": "cache", "safety_identifier": "safety"}
"""Makes a name of one purpose of no use for another."""

SetField = Callable[[str, str | None], str | None]
"""Given a body's field and what the client has there, what OpenAI gets; None where the field stays as it is."""


class Namespaces:
    """One per process."""

    def __init__(
        self, secret: bytes | None = None, *, own_user: str | None = None, fields: frozenset[str] = frozenset()
    ) -> None:
        """`secret`: without one, names are still a user's own, but whoever knows a user's id can compute them.
        `own_user`: the user whose idempotency keys go unchanged; the names of others cannot be guessed, so they stay
        apart. `fields`: those of a body that become a user's own.
        """
        self._keyed: Final = {
            purpose: blake2b(key=secret or b"", person=label.encode(), digest_size=NAME_BYTES)
            for purpose, label in _LABELS.items()
        }
        self._own_user: Final = own_user if secret is not None else None
        self._fields: Final = fields

    def name_key(self, user_id: str, key: str) -> str:
        """The idempotency key that OpenAI gets for a client's."""
        return key if user_id == self._own_user else f"gw-{self._name(IDEMPOTENCY_KEY, user_id, key)}"

    def fields_of(self, user_id: str) -> SetField | None:
        """How a body of this user's changes; None where it does not."""
        return partial(self._set_field, user_id) if self._fields else None

    def _set_field(self, user_id: str, field: str, text: str | None) -> str | None:
        return self._name(field, user_id, text or "") if field in self._fields else None

    def _name(self, purpose: str, user_id: str, text: str) -> str:
        hashed = self._keyed[purpose].copy()
        hashed.update(f"{len(user_id)}:{user_id}{text}".encode("utf-8", "surrogatepass"))
        return hashed.hexdigest()
