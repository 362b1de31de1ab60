"""Reads what a whole JSON answer says about its own cost: chat, completions, responses, embeddings.

All of them carry `id`, `model`, `service_tier` and `usage` at the top level (facts/openai-metering.md M1-M3).
Only these are looked at; answers are never kept. Never raises: an unreadable answer has said nothing.
"""

from typing import Final

import msgspec


class Said(msgspec.Struct):
    """What OpenAI said so far about one call. Every field may be missing."""

    response_id: str | None = None
    model: str | None = None
    service_tier: str | None = None
    usage: bytes | None = None
    """The usage block, byte for byte as sent."""


class _Answer(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    service_tier: str | None = None
    usage: msgspec.Raw = msgspec.Raw(b"null")


class _Status(msgspec.Struct):
    status: str | None = None


_status_decoder: Final = msgspec.json.Decoder(_Status)
_decoder: Final = msgspec.json.Decoder(_Answer)
_raw_decoder: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])

TAIL_BYTES: Final = 64 * 1024
"""How much of the beginning and of the end of a body that is too large to keep is enough to find these fields."""


def _said(answer: _Answer) -> Said:
    usage = bytes(answer.usage)
    return Said(answer.id, answer.model, answer.service_tier, usage if usage[:1] == b"{" else None)


def read_body(body: bytes) -> Said:
    """`body`: one whole JSON object."""
    try:
        return _said(_decoder.decode(body))
    except msgspec.ValidationError:
        return _said(_lenient(body))
    except msgspec.DecodeError:
        return Said()


def read_status(body: bytes) -> str | None:
    """The `status` of a Response object (`completed`, `in_progress`, …); None when there is none."""
    try:
        return _status_decoder.decode(body).status
    except msgspec.DecodeError:
        return None


def _lenient(body: bytes) -> _Answer:
    """Field by field, so that one field of an unexpected type does not hide the usage."""
    answer = _Answer()
    try:
        fields = _raw_decoder.decode(body)
    except msgspec.DecodeError:
        return answer
    for name in ("id", "model", "service_tier"):
        raw = bytes(fields.get(name, b"null"))
        if raw[:1] == b'"':
            setattr(answer, name, msgspec.json.decode(raw, type=str))
    answer.usage = fields.get("usage", answer.usage)
    return answer


def read_ends(head: bytes, tail: bytes) -> Said:
    """Of a body too large to keep: its first and last TAIL_BYTES. Embeddings put `model` and `usage` last."""
    said = Said()
    for piece in (head, tail):
        for name, attribute in (
            (b'"id"', "response_id"),
            (b'"model"', "model"),
            (b'"service_tier"', "service_tier"),
        ):
            value = _value_after(piece, name)
            if value is not None and value[:1] == b'"':
                setattr(said, attribute, msgspec.json.decode(value, type=str))
    usage = _value_after(tail, b'"usage"')
    if usage is not None and usage[:1] == b"{":
        said.usage = usage
    return said


def _value_after(piece: bytes, name: bytes) -> bytes | None:
    """The raw JSON value that follows the last `name` key in `piece`, or None when it is cut off."""
    at = piece.rfind(name)
    if at < 0:
        return None
    rest = piece[at + len(name) :].lstrip()
    if rest[:1] != b":":
        return None
    rest = rest[1:].lstrip()
    end = _value_end(rest)
    return None if end is None else rest[:end]


def _value_end(text: bytes) -> int | None:
    """Where the JSON string or object at the start of `text` ends."""
    if text[:1] not in (b'"', b"{"):
        return None
    depth, in_string, escaped = 0, False, False
    for index, byte in enumerate(text):
        if in_string:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                in_string = False
        elif byte == 0x22:
            in_string = True
        elif byte == 0x7B:
            depth += 1
        elif byte == 0x7D:
            depth -= 1
        if depth == 0 and not in_string:
            return index + 1
    return None
