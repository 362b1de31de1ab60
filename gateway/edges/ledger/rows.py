"""Stream bytes to ledger columns, one to one. Must not price, correct or drop anything.

The JSON columns stay the bytes that the proxy wrote (msgspec.Raw): neither decoded nor encoded again.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from gateway.core.event import NO_USAGE, Evidence, UsageEvent, encode


class Entry(NamedTuple):
    """One event on its way into the ledger: the id it is known by, and its bytes as the journal has them."""

    event_id: str
    raw: bytes

    @classmethod
    def of(cls, event: UsageEvent) -> "Entry":
        """The entry of an event made here (a correction, a swept call)."""
        return cls(event.id, encode(event))


class NotARow(Exception):
    """These bytes can never become a ledger row; the message says why."""


class _Event(msgspec.Struct, frozen=True):
    """UsageEvent, with its JSON parts left as they are. A test holds the two together."""

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
    billed_nano: int | None = None
    price_version: str = ""
    cost_lines: msgspec.Raw = msgspec.Raw(b"[]")
    usage: msgspec.Raw = NO_USAGE
    response_id: str | None = None
    request_id: str | None = None
    metadata: msgspec.Raw = msgspec.Raw(b"{}")
    adjusts: str | None = None


Row = tuple[object, ...]
"""One value per sql.COLUMNS."""

_decoder: Final = msgspec.json.Decoder(_Event)


def to_row(entry: Entry) -> Row:
    """The columns of one entry, in the order of sql.COLUMNS. Raises NotARow."""
    try:
        e = _decoder.decode(entry.raw)
        lines, usage, metadata = str(e.cost_lines, "utf-8"), str(e.usage, "utf-8"), str(e.metadata, "utf-8")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NotARow(f"does not decode: {error}") from error
    if e.id != entry.event_id:
        raise NotARow(f"its id is {e.id!r}, its entry's is {entry.event_id!r}")
    for name, at in (("started_at", e.started_at), ("completed_at", e.completed_at)):
        if at.tzinfo is None:
            raise NotARow(f"{name} has no time zone")
    return (
        e.id, e.user_id, e.meeting_id, e.api_key_id, e.adjusts, e.endpoint, e.model, e.service_tier, e.evidence,
        e.prompt_tokens, e.completion_tokens, e.total_tokens, e.cost_nano, e.billed_nano, e.price_version,
        lines, None if usage == "null" else usage, e.response_id, e.request_id, metadata, e.started_at, e.completed_at,
    )  # fmt: skip


def columns(rows: Sequence[Row]) -> list[list[object]]:
    """Rows turned into one list per column, as unnest takes them."""
    return [list(column) for column in zip(*rows, strict=True)]
