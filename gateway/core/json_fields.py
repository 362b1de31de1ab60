"""Top-level fields of a JSON object with where they lie in the bytes, read without building the document. Pure.

A body is forwarded byte for byte, so what the gateway reads must be what OpenAI reads: a duplicate of a field
that the gateway reads is refused, escapes decoded (DESIGN "What holds" 8, facts/attacks.md A41).
"""

import re
from typing import Final, NamedTuple

import msgspec

_raw_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_SPACE: Final = re.compile(rb"[ \t\r\n]*")
_KEY: Final = re.compile(rb'[ \t\r\n]*("(?:[^"\\]|\\.)*")[ \t\r\n]*:[ \t\r\n]*')
_BREAK: Final = re.compile(rb"[ \t\r\n]*,")


class Field(NamedTuple):
    """One member: its value's raw bytes, and the offset of that value in the object."""

    raw: bytes
    offset: int


class DuplicateField(ValueError):
    """The object has the field `args[0]` twice."""


def fields(body: bytes) -> dict[str, Field]:
    """Every top-level member of the object `body`.

    Raises ValueError (msgspec.DecodeError) when it is no JSON object, DuplicateField when a name comes twice.
    msgspec finds the values in C (a repeated name keeps its last value); the walk over the names only checks
    that each one stands where it must, so a repeat cannot hide.
    """
    values = _raw_fields.decode(body)
    found: dict[str, Field] = {}
    at = _SPACE.match(body).end() + 1  # type: ignore[union-attr]  # the pattern matches the empty string
    while len(found) < len(values):
        key = _KEY.match(body, at)
        if key is None:
            raise ValueError("the object could not be walked")
        name = msgspec.json.decode(key[1], type=str)
        raw = bytes(values[name])
        if name in found or not body.startswith(raw, key.end()):
            raise DuplicateField(name)
        found[name] = Field(raw, key.end())
        at = key.end() + len(raw)
        comma = _BREAK.match(body, at)
        at = comma.end() if comma else at
    key = _KEY.match(body, at)
    if key is not None:
        raise DuplicateField(msgspec.json.decode(key[1], type=str))
    return found
