"""How much structure a JSON document has, counted in C before anything of it is built. Pure.

Reading JSON in Python costs about a microsecond per object, and one megabyte holds 350,000 of them. So what a client
sends is bounded by what it holds, besides its bytes.
"""

import re
from typing import Final, NamedTuple

SMALL_BYTES: Final = 16 * 1024
"""A document of this size is cheap to read, whatever it holds."""
_PIECE_BYTES: Final = 1 << 20
"""Bytes that are counted at once: other threads may run in between."""
_NOT_STRUCTURE: Final = b"0123456789+-.eE \t\r\n"
_NUMBERS: Final = re.compile(rb"\[,+\]")
"""A list of plain numbers, once the numbers are taken out."""


_ESCAPE_END: Final = re.compile(rb"\\*.?", re.DOTALL)
"""The rest of an escape that may be cut in two: no further than behind the character that it is about."""


class Bounds(NamedTuple):
    """How much of each a document may hold."""

    objects: int
    values: int
    """Values of any kind but numbers in lists of plain numbers."""
    numbers: int
    """Numbers in lists of plain numbers: token ids, as embeddings take them."""


class TooMuchStructure(ValueError):
    """The document holds more than `limit` of `what` ("objects", "values", "numbers")."""

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(what, limit)
        self.what: Final = what
        self.limit: Final = limit


def check_structure(document: bytes, bounds: Bounds) -> None:
    """Raises TooMuchStructure. Bytes that are no JSON pass, or not: whoever parses them finds out."""
    if len(document) <= SMALL_BYTES:
        return
    # Upper bounds: in text these bytes are no structure. Every value is the first of its container, or behind a comma.
    objects = _count(document, b"{", bounds.objects)
    values = objects + _count(document, b"[", bounds.values) + _count(document, b",", bounds.values) + 1
    if objects <= bounds.objects and values <= bounds.values:
        return
    _check_closely(_without_strings(document, bounds), bounds)


def is_light(document: bytes, marks_max: int) -> bool:
    """Whether no more than `marks_max` bytes of the document can be structure."""
    if len(document) <= SMALL_BYTES:
        return True
    return document.count(b",") + document.count(b"{") + document.count(b"[") <= marks_max


def _check_closely(bare: bytes, bounds: Bounds) -> None:
    objects = bare.count(b"{")
    if objects > bounds.objects:
        raise TooMuchStructure("objects", bounds.objects)
    commas = bare.count(b",")
    others = _NUMBERS.sub(b"[]", bare.translate(None, _NOT_STRUCTURE)).count(b",")
    if others + objects + bare.count(b"[") + 1 > bounds.values:
        raise TooMuchStructure("values", bounds.values)
    if commas - others > bounds.numbers:
        raise TooMuchStructure("numbers", bounds.numbers)


def _without_strings(document: bytes, bounds: Bounds) -> bytes:
    """The document with a quote in the place of each string. A value has two at most: its name and itself."""
    bare: list[bytes] = []
    at, strings, inside = 0, 0, 0
    while at < len(document):
        end = at + _PIECE_BYTES
        if document.endswith(b"\\", at, end):
            end = _ESCAPE_END.match(document, end).end()  # type: ignore[union-attr]  # it always matches
        parts = document[at:end].replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        if inside and len(parts) > 1:
            bare.append(b'"')
        bare.append(b'"'.join(parts[inside::2]))
        strings += len(parts) - 1
        inside ^= (len(parts) - 1) & 1
        if strings > 4 * bounds.values:
            raise TooMuchStructure("values", bounds.values)
        at = end
    return b"".join(bare)


def _count(document: bytes, mark: bytes, enough: int) -> int:
    """How often `mark` is in the document; counting stops above `enough`."""
    found = 0
    for at in range(0, len(document), _PIECE_BYTES):
        found += document.count(mark, at, at + _PIECE_BYTES)
        if found > enough:
            break
    return found
