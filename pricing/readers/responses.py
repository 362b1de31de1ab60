"""What the events of a Responses stream say: id, model, tier, usage, visible text. Pure.

One terminal event ends a stream: `response.completed`, `.incomplete` (it has usage) or `.failed`, or a bare
`error`; no `[DONE]` is promised. Usage is taken from any of them (OpenAI's docs).
"""

import re
from typing import Final

import msgspec

from pricing.readers.body import UNREADABLE, Said, read_fields, text_of

TERMINAL: Final = frozenset(
    {"response.completed", "response.incomplete", "response.failed", "response.cancelled", "error"}
)
_DELTA: Final = b'"delta":"'
_EMPTY: Final = b'"delta":""'
_OTHER_DELTA: Final = re.compile(rb'"delta"\s*:\s*"(?!")')
"""Spelled in another way than OpenAI's."""


class _Delta(msgspec.Struct):
    type: str = ""
    delta: str = ""


_delta_decoder: Final = msgspec.json.Decoder(_Delta)


def read_event(data: bytes, said: Said) -> str | None:
    """Notes what the event says in `said`; its type when it is terminal, else None."""
    fields = read_fields(data)
    if fields is None:
        return None
    response = fields.get("response")
    if response is not None:
        said.note(read_fields(response) or {})
    item = fields.get("item")
    if item is not None:
        said.note_item(item)
    kind = text_of(fields.get("type"))
    return kind if kind in TERMINAL else None


def count_deltas(region: bytes) -> int:
    """How many deltas these events carry: about one output token each. Inside a JSON string no such key can stand."""
    deltas = region.count(_DELTA)
    return deltas - region.count(_EMPTY) if deltas else len(_OTHER_DELTA.findall(region))


def visible_text(data: bytes) -> str:
    """The text that a `….delta` event adds to the output; "" for every other event."""
    try:
        event = _delta_decoder.decode(data)
    except UNREADABLE:
        return ""
    return event.delta if event.type.endswith(".delta") else ""
