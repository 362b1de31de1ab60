"""Converts values of an SQLite row to those of a room; a checksum over rooms. Pure. No error shows a value.

Text that is not UTF-8 comes as bytes, as blobs do.
"""

import base64
import hashlib
import json
import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from gateway.kit.instants import rfc3339

Value = None | int | float | str | bytes
"""What SQLite keeps."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER: Final = re.compile(r"-?\d+(\.\d+)?", re.ASCII)
_DAY: Final = re.compile(r"\d{8}", re.ASCII)
MS_FROM: Final = 100_000_000_000
"""From here on a number of time counts milliseconds: as seconds it would be the year 5138."""
US_FROM: Final = 100_000_000_000_000
"""Beyond any millisecond that is meant."""


def json_value(value: Value) -> Any:
    """The value as JSON; a blob as `{"base64": …}`. Raises ValueError for an infinite number."""
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("is an infinite number, which JSON has not")
    return value


def text_of(value: Value) -> str | None:
    """Text, or a whole number as text. Raises ValueError for anything else."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return str(value)
    raise ValueError("is neither text nor a whole number")


def uuid_of(value: Value) -> str | None:
    """A UUID in lower case, of text in any of its spellings or of 16 bytes; empty text is none. Raises ValueError."""
    if value is None or value == "":
        return None
    try:
        if isinstance(value, str):
            return str(UUID(value))
        if isinstance(value, bytes):
            return str(UUID(bytes=value))
    except ValueError:
        pass
    raise ValueError("is not a UUID")


def instant_of(value: Value) -> datetime | None:
    """An instant in UTC: ISO 8601 (UTC where no zone is given), or Unix seconds or milliseconds, as text too; empty
    text is none. Raises ValueError.
    """
    if value is None or value == "":
        return None
    if isinstance(value, str) and (not _NUMBER.fullmatch(value) or _DAY.fullmatch(value)):
        return _iso(value)
    if isinstance(value, bytes) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError("is not an instant")
    number = Decimal(str(value))
    if abs(number) >= US_FROM:
        raise ValueError("is neither Unix seconds nor milliseconds")
    seconds = number / 1000 if abs(number) >= MS_FROM else number
    try:
        return _EPOCH + timedelta(microseconds=int((seconds * 1_000_000).to_integral_value()))
    except OverflowError:
        raise ValueError("is not an instant") from None


def key_text(values: Iterable[Value]) -> str:
    """A row's key as text, never the same for two keys. Raises ValueError where a part is NULL."""
    parts = [_key_part(value) for value in values]
    return parts[0] if len(parts) == 1 else f"({','.join(parts)})"


def canonical(content: Any) -> bytes:
    """One spelling per content: names in order, numbers by value, as PostgreSQL may write 1e2 as 100."""
    return json.dumps(_plain(content), ensure_ascii=True, sort_keys=True, separators=(",", ":")).encode()


class Checksum:
    """Of a set of rows in any order: the sum of their digests. A row that is there twice counts twice."""

    def __init__(self) -> None:
        self._sum = 0
        self.rows = 0

    def add(self, content: bytes) -> None:
        """One more row, as `canonical` spells it."""
        self._sum = (self._sum + int.from_bytes(hashlib.sha256(content).digest())) % (1 << 256)
        self.rows += 1

    def hex(self) -> str:
        """64 digits."""
        return f"{self._sum:064x}"


def _iso(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text.strip())
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("is neither ISO 8601 nor Unix time") from None


def _key_part(value: Value) -> str:
    if value is None:
        raise ValueError("is NULL")
    if isinstance(value, bytes):
        return f"x'{value.hex()}'"
    if isinstance(value, str):
        # In quotes wherever it could be taken for another kind of key, or for a part of one.
        return (
            value
            if re.fullmatch(r"[A-Za-z_][\w.@+-]*|[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}", value, re.ASCII)
            else json.dumps(value)
        )
    return repr(value)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        sign, digits, exponent = Decimal(str(value)).as_tuple()
        kept = "".join(map(str, digits)).lstrip("0")
        short = kept.rstrip("0")
        return {"number": [sign if short else 0, short, int(exponent) + len(kept) - len(short) if short else 0]}
    return value
