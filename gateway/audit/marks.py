"""What an audit of everything leaves when its sums are right: a mark, from which later audits go on. Pure.

A mark holds sums of what was booked before the books' seal, which never change any more. It is signed under
GATEWAY_SECRETS, which is not in PostgreSQL, and names the mark before it by its digest: who can only write to the
database can neither make one nor change an old one without being noticed.
"""

import hmac
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import blake2b, sha256
from itertools import pairwise
from typing import Final, NamedTuple

import msgspec

from gateway.config.key_ring import KeyRing

_PERSON: Final = b"gateway.audit.1"
"""Makes these MACs of no use for anything else under the same secrets. At most 16 bytes."""


class MarkSums(NamedTuple):
    """Sums over a span of time, or the counters that they must be equal to."""

    rows: int
    """Rows of the ledger; the counters of writers have them too."""
    key_calls: int
    """Calls with a key; api_keys has them too."""
    owed_nano: int
    """What customers' windows owe by their own rows, and what was frozen before there were customers; the outbox, the
    carry, what is due to customers, what they took over and what is not frozen yet have it too."""
    credit_nano: int
    """What prepaid credit has paid; balances have it too."""


class Mark(NamedTuple):
    """One of them."""

    until: datetime
    """The books were sealed up to here."""
    as_of: datetime
    """When all was compared."""
    made_by: str
    sums: MarkSums
    previous: bytes | None
    """The digest of the mark before; None of the first."""
    mac: bytes = b""


class MarkSigner:
    """The newest secret of the ring signs; every one is accepted."""

    def __init__(self, ring: KeyRing) -> None:
        self._secrets: Final = [secret for key_id in ring.ids if (secret := ring.key(key_id)) is not None]

    def sign(self, mark: Mark) -> Mark:
        """The mark with its MAC."""
        return mark._replace(mac=_mac(self._secrets[0], mark))

    def is_genuine(self, mark: Mark) -> bool:
        """Whether one of these secrets has signed it."""
        return any(hmac.compare_digest(_mac(secret, mark), mark.mac) for secret in self._secrets)


def digest(mark: Mark) -> bytes:
    """What the next mark names this one by."""
    return sha256(_content(mark) + mark.mac).digest()


def find_faults(marks: Sequence[Mark], signer: MarkSigner) -> list[str]:
    """What is wrong with these marks, the newest first.

    The signature of the newest one covers the digest of the one before, and so on: a secret that only signed older
    ones need not be known any more.
    """
    wrong = []
    if marks and not signer.is_genuine(marks[0]):
        wrong.append(f"mark of {_utc(marks[0].as_of)}: not signed by GATEWAY_SECRETS")
    wrong += [
        f"mark of {_utc(older.as_of)}: not as it was when the next one was made"
        for newer, older in pairwise(marks)
        if newer.previous != digest(older)
    ]
    return wrong


def _mac(secret: bytes, mark: Mark) -> bytes:
    return blake2b(_content(mark), key=secret, person=_PERSON, digest_size=32).digest()


def _content(mark: Mark) -> bytes:
    previous = None if mark.previous is None else mark.previous.hex()
    return msgspec.json.encode([_utc(mark.until), _utc(mark.as_of), mark.made_by, *mark.sums, previous])


def _utc(at: datetime) -> str:
    return at.astimezone(UTC).isoformat()
