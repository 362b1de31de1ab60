"""Says whether an entry of the stream was written by a gateway of ours: a MAC under GATEWAY_SECRETS, not in Redis.

Whoever can write to Redis can add, alter and delete entries, and must not be able to make a row by that. Pure.
"""

import hmac
from hashlib import blake2b
from typing import Final

from gateway.config.key_ring import KeyRing

MAC_BYTES: Final = 16
_PERSON: Final = b"gateway.entry.1"
"""Makes these MACs of no use for anything else under the same secrets. At most 16 bytes."""


class EntrySigner:
    """The newest secret of the ring signs; every one is accepted. Keyed once: a copy is cheaper than a start."""

    __slots__ = ("_admit_unsigned", "_keyed")

    def __init__(self, ring: KeyRing, *, admit_unsigned: bool = False) -> None:
        """`admit_unsigned`: whether an entry without a MAC is believed, as long as not every host signs."""
        secrets = [secret for key_id in ring.ids if (secret := ring.key(key_id)) is not None]
        self._keyed: Final = [blake2b(key=secret, person=_PERSON, digest_size=MAC_BYTES) for secret in secrets]
        self._admit_unsigned: Final = admit_unsigned

    def sign(self, event_id: str, raw: bytes) -> bytes:
        """The MAC of an entry."""
        return _mac(self._keyed[0], event_id, raw)

    def judge(self, event_id: str, raw: bytes, mac: bytes | None) -> str | None:
        """Why the entry is not believed, in a word; None when it is genuine."""
        if mac is None:
            return None if self._admit_unsigned else "unsigned"
        for keyed in self._keyed:
            if hmac.compare_digest(_mac(keyed, event_id, raw), mac):
                return None
        return "wrong_mac"


def _mac(keyed: "blake2b", event_id: str, raw: bytes) -> bytes:
    hashed = keyed.copy()
    # The length first, or bytes could move from the id to the record and the MAC would still be right.
    named = event_id.encode("utf-8", "surrogatepass")
    hashed.update(b"%d:%b" % (len(named), named))
    hashed.update(raw)
    return hashed.digest()
