"""What the events of a Responses stream say: id, model, tier, usage, visible text. Pure.

Exactly one terminal event ends a stream: `response.completed`, `.incomplete` (it has usage) or `.failed`, or a
bare `error`; no `[DONE]` is promised. Usage is taken from any of them (facts/openai-metering.md M2).
"""

from typing import Final

import msgspec

from pricing.readers.body import Said

TERMINAL: Final = frozenset(
    {"response.completed", "response.incomplete", "response.failed", "response.cancelled", "error"}
)


class _Response(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    service_tier: str | None = None
    usage: msgspec.Raw = msgspec.Raw(b"null")


class _Event(msgspec.Struct):
    type: str = ""
    response: _Response | None = None


class _Delta(msgspec.Struct):
    type: str = ""
    delta: str = ""


_decoder: Final = msgspec.json.Decoder(_Event)
_delta_decoder: Final = msgspec.json.Decoder(_Delta)


def read_event(data: bytes, said: Said) -> str | None:
    """Notes what the event says in `said`; its type when it is terminal, else None."""
    try:
        event = _decoder.decode(data)
    except msgspec.DecodeError:
        return None
    response = event.response
    if response is not None:
        said.response_id = said.response_id or response.id
        said.model = response.model or said.model
        said.service_tier = response.service_tier or said.service_tier
        usage = bytes(response.usage)
        if usage[:1] == b"{":
            said.usage = usage
    return event.type if event.type in TERMINAL else None


def visible_text(data: bytes) -> str:
    """The text that a `….delta` event adds to the output; "" for every other event."""
    try:
        event = _delta_decoder.decode(data)
    except msgspec.DecodeError:
        return ""
    return event.delta if event.type.endswith(".delta") else ""
