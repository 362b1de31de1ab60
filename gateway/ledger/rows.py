"""Stream bytes to ledger columns, one to one. Must not price, correct or drop anything.

The JSON columns stay the bytes that the proxy wrote (msgspec.Raw): neither decoded nor encoded again. Only in an entry
of an older version, a usage block that jsonb would refuse is moved to where it can be kept, and the row says so.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from gateway.usage.event import EventFields, UsageEvent, encode
from gateway.usage.usage_block import NO_USAGE, StoredUsage, keep
from pricing.readers.body import UNREADABLE, object_of, read_fields


class LedgerEntry(NamedTuple):
    """One event on its way into the ledger: the id it is known by, and its bytes as the journal has them."""

    event_id: str
    raw: bytes
    distrust: str | None = None
    """Why it cannot be of this gateway, in a word: it never becomes a row."""

    @classmethod
    def of(cls, event: UsageEvent) -> "LedgerEntry":
        """The entry of an event made here (a correction, a swept call)."""
        return cls(event.id, encode(event))


class NotARow(Exception):
    """These bytes can never become a ledger row; the message says why, `kind` in a word and quoting nothing."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind: Final = kind


class _Event(EventFields, frozen=True, kw_only=True):
    """UsageEvent, with its JSON parts left as they are. A test holds the two together."""

    cost_lines: msgspec.Raw = msgspec.Raw(b"[]")
    metadata: msgspec.Raw = msgspec.Raw(b"{}")
    item_ids: msgspec.Raw = msgspec.Raw(b"[]")


class _Objects(msgspec.Struct, frozen=True):
    user_id: str
    endpoint: str
    response_id: str | None = None
    item_ids: tuple[str, ...] = ()


DISTRUST: Final = {
    "unsigned": "its entry has no MAC, so a gateway with GATEWAY_SECRETS did not write it",
    "wrong_mac": "its entry's MAC is of no secret in GATEWAY_SECRETS: it was forged, altered or given another id",
}
"""Why an entry is not believed, by ledger/signing's word."""

Row = tuple[object, ...]
"""One value per sql.COLUMNS."""

_decoder: Final = msgspec.json.Decoder(_Event)
_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_objects_decoder: Final = msgspec.json.Decoder(_Objects)


def to_row(entry: LedgerEntry) -> Row:
    """The columns of one entry, in the order of sql.COLUMNS. Raises NotARow."""
    if entry.distrust is not None:
        raise NotARow(entry.distrust, DISTRUST[entry.distrust])
    try:
        e, kept = _read(entry.raw)
        lines, usage, metadata = str(e.cost_lines, "utf-8"), str(kept.usage, "utf-8"), str(e.metadata, "utf-8")
        item_ids = str(e.item_ids, "utf-8")
        if kept.problem is not None:
            metadata = _with_problem(e.metadata, kept.problem)
    except UNREADABLE as error:
        raise NotARow("not_decodable", f"does not decode: {error}") from error
    if e.id != entry.event_id:
        raise NotARow("another_id", f"its id is {e.id!r}, its entry's is {entry.event_id!r}")
    for name, at in (("started_at", e.started_at), ("completed_at", e.completed_at)):
        if at.tzinfo is None:
            raise NotARow("no_time_zone", f"{name} has no time zone")
    return (
        e.id, e.user_id, e.meeting_id, e.api_key_id, e.adjusts, e.endpoint, e.model, e.service_tier, e.evidence,
        e.prompt_tokens, e.completion_tokens, e.total_tokens, e.cost_nano, e.billed_nano, e.price_version,
        e.plan_version, lines, None if usage == "null" else usage, kept.raw, e.response_id, e.request_id, metadata,
        item_ids, e.started_at, e.completed_at,
    )  # fmt: skip


def _read(raw: bytes) -> tuple[_Event, StoredUsage]:
    """The event, and its usage block as the ledger can keep it. Raises what UNREADABLE lists."""
    try:
        event = _decoder.decode(raw)
    except UNREADABLE:
        # An older version wrote blocks as they came, and one that msgspec refuses hides all the rest.
        block = object_of((read_fields(raw) or {}).get("usage"))
        if block is None:
            raise
        return _decoder.decode(raw.replace(b'"usage":' + block, b'"usage":null', 1)), keep(block)
    if event.usage_raw is not None:
        return event, StoredUsage(NO_USAGE, event.usage_raw)
    return event, keep(bytes(event.usage))


def _with_problem(metadata: msgspec.Raw, problem: str) -> str:
    fields = _members.decode(metadata)
    known = msgspec.json.decode(fields.get("problems", b"[]"), type=list[str])
    fields["problems"] = msgspec.Raw(msgspec.json.encode([*known, problem]))
    return str(msgspec.json.encode(fields), "utf-8")


def find_owned(raw: bytes) -> dict[str, str]:
    """The objects at OpenAI that an entry tells of, each with the user id of its owner: those of sql.INSERT_BATCH."""
    if b'"item_ids"' not in raw and b'"endpoint":"responses"' not in raw:
        return {}
    try:
        event = _objects_decoder.decode(raw)
    except UNREADABLE:
        return {}  # it is in quarantine
    response_ids = (event.response_id,) if event.endpoint == "responses" and event.response_id else ()
    return dict.fromkeys((*response_ids, *event.item_ids), event.user_id)


def columns(rows: Sequence[Row]) -> list[list[object]]:
    """Rows turned into one list per column, as unnest takes them."""
    return [list(column) for column in zip(*rows, strict=True)]
