"""Whether a webhook comes from Daily.co: an HMAC over its time and its bytes (Daily.co's docs). Pure.

Says yes or no and never why: who forges one learns nothing from the answer.
"""

import base64
import hmac
import json
import re
from datetime import datetime
from typing import Final

PAST_S: Final = 75 * 60.0
"""Seconds that a signature stays good: Daily tries for up to 15 minutes, and may sign once for all tries."""
FUTURE_S: Final = 300.0
"""Seconds by which Daily's clock may be ahead of ours."""
REWRITTEN_BYTES_MAX: Final = 64 * 1024
"""Larger documents are not written anew: anybody may send one, and Daily.co's are small."""
_TIMESTAMP: Final = re.compile(r"\d{1,16}(\.\d{1,9})?", re.ASCII)
_SIGNATURE: Final = re.compile(r"[A-Za-z0-9+/]{43}=")
"""32 bytes in base64."""
_MILLISECONDS_FROM: Final = 100_000_000_000
"""A timestamp above this is in milliseconds: as seconds it would be the year 5138."""


def is_plausible(timestamp: str, signature: str, now_s: float) -> bool:
    """Whether a body could make this a genuine webhook: its time is near, and `signature` can be one."""
    at_s = _unix_s(timestamp)
    if at_s is None or not -FUTURE_S <= now_s - at_s <= PAST_S:
        return False
    return _SIGNATURE.fullmatch(signature.strip()) is not None


def is_genuine(secret: bytes, timestamp: str, signature: str, body: bytes, now_s: float) -> bool:
    """Whether `signature` (base64) is that of `body` at `timestamp`, and not too old.

    The bytes as they came; else as Daily's own example signs them, the document written anew without spaces.
    """
    if not is_plausible(timestamp, signature, now_s):
        return False
    given = signature.strip().encode()
    if hmac.compare_digest(sign(secret, timestamp, body), given):
        return True
    again = _written_anew(body)
    return again is not None and hmac.compare_digest(sign(secret, timestamp, again), given)


def _unix_s(timestamp: str) -> float | None:
    """Unix seconds or milliseconds, or an ISO instant: the unit is not documented."""
    if _TIMESTAMP.fullmatch(timestamp):
        at = float(timestamp)
        return at / 1000 if at > _MILLISECONDS_FROM else at
    try:
        instant = datetime.fromisoformat(timestamp) if timestamp.isascii() else None
    except ValueError:
        return None
    # One without a zone could be of any.
    return None if instant is None or instant.tzinfo is None else instant.timestamp()


def sign(secret: bytes, timestamp: str, body: bytes) -> bytes:
    """The signature, base64."""
    return base64.b64encode(hmac.digest(secret, timestamp.encode() + b"." + body, "sha256"))


def _written_anew(body: bytes) -> bytes | None:
    if len(body) > REWRITTEN_BYTES_MAX:
        return None
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    # Half a surrogate pair is written as JSON.stringify writes it, by its escape (ECMA-262, QuoteJSONString).
    again = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "backslashreplace")
    return None if again == body else again
