"""The usage block of an answer, in the form in which records and the ledger keep it. Pure.

OpenAI prints whole answers indented over many lines (seen in recordings of the real API), and a record is one line.
So white space between the tokens goes; names, values, their order, the digits of numbers and the escapes in strings
stay as they were sent. What PostgreSQL's jsonb would refuse is kept as bytes instead, so that it costs no row.
"""

import re
from itertools import accumulate
from typing import Final, NamedTuple

import msgspec

NO_USAGE: Final = msgspec.Raw(b"null")
BLOCK_BYTES_MAX: Final = 64 * 1024
"""Of a larger block only the beginning is kept. The ledger's own bound is the same (migrations/)."""

DEPTH_MAX: Final = 100
"""Objects and arrays within each other; those of OpenAI have two."""

_BRACKET: Final = re.compile(rb"[][{}]")
_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"')
# More than a numeric may have (131,072 digits before the point, 16,383 after it), with a wide margin.
_DIGITS_MAX: Final = 999
_SHAPE: Final = bytes.maketrans(b"0123456789.eE", b"0" * 11 + b"ee")
"""Every digit and point becomes 0, every E becomes e."""
_LONG: Final = b"0" * (_DIGITS_MAX + 1)
_POWER: Final = b"0e0000"


class StoredUsage(NamedTuple):
    """A usage block as it goes into a record: in `usage`, or in `raw` where jsonb cannot hold it."""

    usage: msgspec.Raw
    raw: bytes | None = None
    problem: str | None = None
    """Why it is in `raw`; quotes nothing of it."""


def keep(block: bytes) -> StoredUsage:
    """Never fails: the counts of a block are good whatever else is in it."""
    try:
        line = msgspec.json.format(block, indent=-1)
        line.decode()  # msgspec lets bytes pass that are no UTF-8
    except (ValueError, RecursionError):
        return _as_bytes(block, "it is not JSON that jsonb can hold")
    if _is_deep(line):
        return _as_bytes(line, "it is nested too deep")
    if len(line) > BLOCK_BYTES_MAX:
        return _as_bytes(line, f"it has {len(line)} bytes, of which the first {BLOCK_BYTES_MAX} are kept")
    if b"\\u0000" in line and _NUL.search(line):
        return _as_bytes(line, "text in it has a NUL character")
    if _is_huge(line) and _is_huge(_STRING.sub(b"", line)):
        return _as_bytes(line, "a number in it is too large")
    return StoredUsage(msgspec.Raw(line))


def _is_deep(line: bytes) -> bool:
    """How deep a parser can go is its own affair: from 1,000 to 10,000 levels by Python's version, and PostgreSQL's
    depends on its stack.
    """
    if line.count(b"{") + line.count(b"[") <= DEPTH_MAX:
        return False
    brackets = _BRACKET.finditer(_STRING.sub(b"", line))
    return max(accumulate(1 if each[0] in b"{[" else -1 for each in brackets)) > DEPTH_MAX


def _is_huge(line: bytes) -> bool:
    """Whether there may be a number in it that a numeric cannot hold. (Every call asks: a pattern would cost more.)"""
    shape = line.translate(_SHAPE, b"+-")
    return _POWER in shape or _LONG in shape


def _as_bytes(block: bytes, why: str) -> StoredUsage:
    return StoredUsage(NO_USAGE, block[:BLOCK_BYTES_MAX], f"usage block kept as bytes: {why}")
