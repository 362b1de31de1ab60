"""The one record that travels: proxy → journal → Redis stream → ledger → Stripe. Plain values, no I/O.

The journal's SETTLE payload and the stream entry are the same JSON bytes (`encode`), and the batch
writer maps them one to one to an `openai_usage` row. Nothing after the proxy prices anything.
Money is an integer of nano-USD (1e-9 USD). A prompt, an answer or a key must never enter this record.
"""

from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

import msgspec

from gateway.usage.usage_block import NO_USAGE
from pricing import Line
from pricing.readers.body import UNREADABLE

Evidence = Literal["reported", "drained", "estimated", "unpriced", "void", "adjustment"]


class EventFields(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The fields of an event that have the same form for writers and readers."""

    id: str
    user_id: str
    endpoint: str
    model: str
    evidence: Evidence
    started_at: datetime
    completed_at: datetime
    api_key_id: str | None = None
    meeting_id: str | None = None
    service_tier: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cost_nano: int | None = None
    """What OpenAI charges, nano-USD; None exactly when `evidence` is `unpriced`."""
    billed_nano: int | None = None
    """What the customer is charged, nano-USD; None exactly when `cost_nano` is."""
    price_version: str = ""
    plan_version: str = ""
    """What made `billed_nano` of the cost (usage/plans.py); empty in records from before there were plans."""
    usage: msgspec.Raw = NO_USAGE
    """The usage block as usage/usage_block keeps it. (msgspec cannot decode a union with Raw, hence no None.)"""
    usage_raw: bytes | None = None
    """The same where jsonb cannot hold it; `usage` is null then."""
    response_id: str | None = None
    """Id of the upstream object (`chatcmpl-…`, `resp_…`)."""
    request_id: str | None = None
    """OpenAI's `x-request-id`."""
    adjusts: str | None = None


class UsageEvent(EventFields, frozen=True, kw_only=True, omit_defaults=True):
    """One `openai_usage` row."""

    cost_lines: tuple[Line, ...] = ()
    """Exact decimals as strings, as `gateway price` prints them."""
    metadata: dict[str, Any] = {}
    item_ids: tuple[str, ...] = ()
    """Items of the answer that later requests of this user may refer to."""


class OpenRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Journalled before the first byte goes upstream: enough to settle the call if this process dies."""

    id: str
    user_id: str
    endpoint: str
    model: str
    started_at: datetime
    api_key_id: str | None = None
    meeting_id: str | None = None
    service_tier: str | None = None
    body_bytes: int = 0
    text_bytes: int = 0
    """Bytes of the request that the model reads as text (media excluded)."""
    media_parts: int = 0
    media_bytes: int = 0
    """Bytes of files and sounds in it."""
    file_links: int = 0
    """Files that OpenAI fetches, whose size is not known."""
    output_cap: int | None = None
    """The client's own limit on output tokens, per choice."""
    choices: int = 1
    stream: bool = False
    continues: bool = False
    """Whether an earlier response is read too, whose length the request does not show."""
    cache_ttl: str | None = None
    """The longest time to live that the request asks for its cache writes."""
    metadata: dict[str, Any] = {}


class NoteRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became known mid-call: the response id, and how much output has been relayed so far."""

    id: str
    response_id: str | None = None
    output_events: int = 0
    """Deltas seen so far: about one output token each, so a floor for the estimate. The name is that of old records."""


class Orphan(NamedTuple):
    """An OPEN whose own process will never settle it, and the last NOTE about it: payloads as journalled."""

    opened: bytes
    note: bytes | None


_encoder: Final = msgspec.json.Encoder()
_event_decoder: Final = msgspec.json.Decoder(UsageEvent)
_open_decoder: Final = msgspec.json.Decoder(OpenRecord)
_note_decoder: Final = msgspec.json.Decoder(NoteRecord)


def encode(record: UsageEvent | OpenRecord | NoteRecord) -> bytes:
    """Compact JSON on one line, since usage/usage_block has made the only part one that is not made here."""
    return _encoder.encode(record)


def decode_event(data: bytes) -> UsageEvent:
    """Raises msgspec.DecodeError (or its subclass ValidationError) when `data` is not a UsageEvent."""
    return _event_decoder.decode(data)


def decode_open(data: bytes) -> OpenRecord:
    """Raises msgspec.DecodeError when `data` is not an OpenRecord."""
    return _open_decoder.decode(data)


def decode_note(data: bytes) -> NoteRecord:
    """Raises msgspec.DecodeError when `data` is not a NoteRecord."""
    return _note_decoder.decode(data)


def is_readable(orphan: Orphan, event_id: str) -> bool:
    """Whether this version can read what the orphan's writer wrote of this call."""
    try:
        opened = decode_open(orphan.opened)
        if orphan.note is not None:
            decode_note(orphan.note)
    except UNREADABLE:
        return False
    return opened.id == event_id
