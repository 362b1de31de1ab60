"""Whether a webhook is Stripe's: an HMAC over its time and its bytes (stripe-python 16.1, `WebhookSignature`). Pure.

The same rules as the SDK's, which is too heavy for a proxy: SHA-256 in hexadecimal under the scheme `v1`, several
signatures allowed, 300 seconds into the past. Says yes or no and never why.
"""

import hmac
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

PAST_S: Final = 300
"""Seconds that a signature stays good: Stripe signs each attempt anew."""
HEADER_CHARS_MAX: Final = 2048
"""Of `Stripe-Signature`; one with the signatures of eight secrets has about 600."""
_TIME: Final = re.compile(r"0|[1-9][0-9]{0,15}")
_SIGNATURE: Final = re.compile(r"[0-9a-f]{64}")


class Signature(NamedTuple):
    """What a header says."""

    at: str
    """Unix seconds, as they are signed."""
    signatures: tuple[str, ...]


def read_header(header: str, now_s: float) -> Signature | None:
    """The header's parts; None when no body could make this a genuine webhook."""
    if len(header) > HEADER_CHARS_MAX:
        return None
    pairs = [(name, value) for name, equals, value in (each.partition("=") for each in header.split(",")) if equals]
    times = [value for name, value in pairs if name == "t"]
    signatures = tuple(value for name, value in pairs if name == "v1" and _SIGNATURE.fullmatch(value))
    if len(times) != 1 or not signatures or not _TIME.fullmatch(times[0]) or int(times[0]) < now_s - PAST_S:
        return None
    return Signature(times[0], signatures)


def is_genuine(secrets: Sequence[str], header: str, body: bytes, now_s: float) -> bool:
    """Whether one of these secrets has signed these bytes at a time that is not too long ago."""
    read = read_header(header, now_s)
    if read is None:
        return False
    # Every secret is compared with every signature, so that the time taken says nothing of which was near.
    good = False
    for secret in secrets:
        wanted = sign(secret, read.at, body)
        for given in read.signatures:
            good |= hmac.compare_digest(wanted, given)
    return good


def sign(secret: str, at: str, body: bytes) -> str:
    """The signature, hexadecimal."""
    return hmac.digest(secret.encode(), at.encode() + b"." + body, "sha256").hex()
