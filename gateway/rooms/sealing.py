"""Seals the sensitive fields of a row with AES-256-GCM under a key ring, and opens them. Pure: the nonces are given.

An envelope is `version (1 byte) ‖ nonce (12) ‖ ciphertext and tag (16)`. What it belongs to is authenticated with it:
moved to another row or column, or relabelled with another key's id, it does not open. Must never put a plaintext, a key
or a ciphertext into an error.

Nonces are random: under one key 2^32 seals keep the chance of a repeat below 2^-32 (NIST SP 800-38D §8.3); rotate
before that many.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.config.key_ring import KeyRing
from gateway.kit.errors import Expected

VERSION: Final = 1
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16

RandomBytes = Callable[[int], bytes]
"""So many bytes that nobody can foresee: `os.urandom`."""


class EnvelopeLocation(NamedTuple):
    """Where an envelope is kept; it opens nowhere else."""

    table: str
    row_id: str
    """UUID in lower case."""
    column: str


class Sealed(NamedTuple):
    """An envelope and the id of its key."""

    envelope: bytes
    key_id: str

    def __repr__(self) -> str:
        return f"Sealed({len(self.envelope)} bytes under {self.key_id})"


class NotOpened(Expected):
    """An envelope does not open; the message says why, for an operator."""


class UnknownKey(NotOpened):
    """The ring has no key of this id."""


class Tampered(NotOpened):
    """The key of this id does not open it: another key, changed bytes, or not this row's."""


class UnknownFormat(NotOpened):
    """No envelope, or one of a version that this code does not know."""


def seal(ring: KeyRing, fields: Mapping[str, Any], place: EnvelopeLocation, random_bytes: RandomBytes) -> Sealed:
    """Seals `fields` (JSON values) under the ring's newest key. Raises ValueError for a number that is none (NaN)."""
    key_id = ring.newest
    plain = json.dumps(fields, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    nonce = random_bytes(NONCE_BYTES)
    return Sealed(
        bytes([VERSION]) + nonce + _cipher(ring, key_id).encrypt(nonce, plain, _bound_to(place, key_id)), key_id
    )


def open_sealed(ring: KeyRing, sealed: Sealed, place: EnvelopeLocation) -> dict[str, Any]:
    """The fields. Raises UnknownKey, Tampered or UnknownFormat."""
    envelope, key_id = sealed
    cipher = _cipher(ring, key_id)
    if len(envelope) < 1 + NONCE_BYTES + TAG_BYTES or envelope[0] != VERSION:
        raise UnknownFormat(f"not sealed in a format that is known here (version {VERSION})")
    nonce, body = envelope[1 : 1 + NONCE_BYTES], envelope[1 + NONCE_BYTES :]
    try:
        plain = cipher.decrypt(nonce, body, _bound_to(place, key_id))
    except InvalidTag:
        message = (
            f"does not open under the key {key_id!r}: another key under this id, changed, or moved from another row"
        )
        raise Tampered(message) from None
    fields = json.loads(plain)
    if not isinstance(fields, dict):
        raise UnknownFormat("holds no JSON object")
    return fields


def _cipher(ring: KeyRing, key_id: str) -> AESGCM:
    key = ring.key(key_id)
    if key is None:
        raise UnknownKey(f"sealed under the key {key_id!r}, which ROOMS_KEYS does not have")
    return AESGCM(key)


def _bound_to(place: EnvelopeLocation, key_id: str) -> bytes:
    # Neither a UUID nor the id of a key has a slash in it, so no two places are spelled alike.
    return f"{place.table}/{place.row_id}/{place.column}/{key_id}/v{VERSION}".encode()
