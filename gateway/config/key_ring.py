"""The ring of keys that sensitive fields are sealed with, as ROOMS_KEYS spells it. Pure.

The newest key comes first and seals; every key opens. Must never show a key: not in a repr, not in an error.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Final

KEY_BYTES: Final = 32
"""AES-256."""
_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_FORM: Final = "`id:base64 of 32 bytes`, comma-separated, the newest first (`gateway rooms new-key` makes one)"


class KeyRing:
    """Keys by id, the newest first. Two rings are equal only when they are one."""

    __slots__ = ("_keys", "ids", "newest")

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """`keys`: 32 bytes each, at least one, in order. `parse_ring` is the usual way to one."""
        self._keys: Final = dict(keys)
        self.ids: Final = tuple(self._keys)
        self.newest: Final = self.ids[0]

    def key(self, key_id: str) -> bytes | None:
        """The 32 bytes of a key; None when the ring has none of that id."""
        return self._keys.get(key_id)

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(self.ids)})"


def parse_ring(text: str) -> KeyRing:
    """The ring that `id:base64[,id:base64…]` spells. Raises ValueError naming the entry by its place, never its text:
    what stands where an id should be may be a key.
    """
    keys: dict[str, bytes] = {}
    for number, entry in enumerate((part.strip() for part in text.split(",")), start=1):
        if not entry:
            raise ValueError(f"entry {number} is empty; it must be {_FORM}")
        key_id, colon, encoded = entry.partition(":")
        if not colon or not _ID.fullmatch(key_id):
            raise ValueError(
                f"entry {number} does not begin with an id (letters, digits, . _ -, 64 at most) and a colon"
            )
        if key_id in keys:
            raise ValueError(f"entry {number} has the id of an earlier one; each key needs an id of its own")
        key = _decode(encoded)
        if key is None:
            raise ValueError(f"entry {number}: what follows the colon is not base64")
        if len(key) != KEY_BYTES:
            raise ValueError(f"entry {number}: the key has {len(key)} bytes, it must have {KEY_BYTES}")
        if key in keys.values():
            raise ValueError(f"entry {number} has the very key of an earlier one; a new id needs a new key")
        keys[key_id] = key
    return KeyRing(keys)


def is_key_id(text: str) -> bool:
    """Whether `text` may be the id of a key."""
    return bool(_ID.fullmatch(text))


def entry_of(key_id: str, key: bytes) -> str:
    """One key as the ring spells it. This is the secret itself: only for whoever asked for it."""
    return f"{key_id}:{base64.b64encode(key).decode()}"


def _decode(encoded: str) -> bytes | None:
    try:
        # Both alphabets: generators of keys differ in theirs, and neither is more right.
        return base64.b64decode(encoded.strip().replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        return None
