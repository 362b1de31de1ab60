"""Top-level fields of a JSON object with where they lie in the bytes, read without building the document. Pure.

A body is forwarded byte for byte, so what the gateway reads must be what OpenAI reads: a duplicate of a field
that the gateway reads is refused, escapes decoded.
"""

import json
import re
from collections.abc import Collection
from typing import Any, Final, NamedTuple

import msgspec

_name: Final = msgspec.json.Decoder(str)
_raw_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_MEMBER: Final = rb'[ \t\r\n]*("[^"\\]*(?:\\.[^"\\]*)*")[ \t\r\n]*:[ \t\r\n]*'
"""A name. (Its plain stretches are one step each: an alternation for every character costs three times as much.)"""
_FIRST: Final = re.compile(rb"[ \t\r\n]*\{" + _MEMBER)
_NEXT: Final = re.compile(rb"[ \t\r\n]*," + _MEMBER)
_END: Final = re.compile(rb"[ \t\r\n]*\}")


FIELDS_MAX: Final = 200
"""Members of an object whose members are read one by one; no request of OpenAI's has a quarter of them
(openai-python 3.54, `responses/response_create_params.py`)."""


class Field(NamedTuple):
    """One member: its value's raw bytes, and the offset of that value in the object."""

    raw: bytes
    offset: int


class DuplicateField(ValueError):
    """The object has the field `args[0]` twice."""


class TooManyFields(Exception):
    """The object has more than FIELDS_MAX members. No ValueError: it is valid JSON."""


def fields(body: bytes) -> dict[str, Field]:
    """Every top-level member of the object `body`.

    Raises ValueError when it is not a JSON object or is nested too deeply, DuplicateField when a name comes twice,
    TooManyFields when it has more than FIELDS_MAX.
    msgspec finds the values in C (a repeated name keeps its last value); the walk over the names only checks
    that each one stands where it must, so a repeat cannot hide.
    """
    try:
        values = _raw_fields.decode(body)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if len(values) > FIELDS_MAX:
        raise TooManyFields
    found: dict[str, Field] = {}
    name, at = "", 0
    member = _FIRST.match(body)
    while member is not None:
        name = _name.decode(member[1])
        raw, at = bytes(values[name]), member.end()
        if name in found or not body.startswith(raw, at):
            raise DuplicateField(name)
        found[name] = Field(raw, at)
        at += len(raw)
        member = _NEXT.match(body, at)
    if found and _END.match(body, at) is None:
        # The value here is longer than the last one of that name (12 and then 1).
        raise DuplicateField(name)
    return found


def document(raw: bytes, *, once: Collection[str]) -> Any:
    """The whole value `raw`. Raises ValueError as `fields`, DuplicateField when any object has a name of `once` twice.

    Ten times the cost of a parser that keeps the last of two values: only for bodies that may name something foreign.
    """

    def checked(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) != len(pairs):
            names = [name for name, _ in pairs]
            for name in once:
                if names.count(name) > 1:
                    raise DuplicateField(name)
        return members

    try:
        return json.loads(raw.decode(), object_pairs_hook=checked)
    except RecursionError:
        raise ValueError("nested too deeply") from None
