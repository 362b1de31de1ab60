"""Reads what a whole JSON answer says about its own cost: chat, completions, responses, embeddings.

All of them carry `id`, `model`, `service_tier` and `usage` at the top level (OpenAI's docs).
Only these are looked at; answers are never kept. Never raises: an unreadable answer has said nothing, and one
field of an unexpected type does not hide the others.
"""

import json
import re
from typing import Final

import msgspec

from pricing.readers.scan import Scan
from pricing.readers.text import storable

UNREADABLE: Final = (ValueError, RecursionError)
"""What msgspec raises for bytes that are no JSON, no UTF-8 (UnicodeDecodeError), or nested too deeply."""
UNFINISHED: Final = frozenset({"queued", "in_progress"})
"""Statuses of a Response object whose usage is still to come."""
NAME_CHARS_MAX: Final = 256
"""Characters of a model, tier or id; none is nearly as long."""
ITEMS_MAX: Final = 256
"""Ids of output items that are kept of one answer."""
_decoder: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_text: Final = msgspec.json.Decoder(str)
_ITEM_ID: Final = re.compile(r"[A-Za-z0-9_\-]{1,256}")


class _ItemId(msgspec.Struct):
    id: str | None = None


_items: Final = msgspec.json.Decoder(list[_ItemId])


class Said(msgspec.Struct):
    """What OpenAI said so far about one call. Every field may be missing."""

    response_id: str | None = None
    model: str | None = None
    service_tier: str | None = None
    usage: bytes | None = None
    """The usage block, byte for byte as sent."""
    item_ids: list[str] = []
    """Ids of the first ITEMS_MAX items of a Responses answer."""
    unsure: bool = False
    """Whether something may have been said that was not found, so that what is missing is unknown."""

    def note(self, fields: dict[str, bytes]) -> None:
        """Takes over what an answer's or a chunk's top-level fields say: the first id, the last of the rest."""
        self.response_id = self.response_id or _name_of(fields.get("id"))
        self.model = _name_of(fields.get("model")) or self.model
        tier = fields.get("service_tier")
        self.service_tier = _name_of(tier) or self.service_tier
        if tier is not None and tier != b"null" and text_of(tier) is None:
            self.unsure = True  # it is said, in a way that nobody knows
        self.usage = object_of(fields.get("usage")) or self.usage
        output = fields.get("output")
        if output is not None:
            self._note_output(output)

    def note_item(self, item: bytes) -> None:
        """`item`: one output item. Only its own id counts: what is inside it may be of the client's making."""
        self.note_id(text_of((read_fields(item) or {}).get("id")))

    def _note_output(self, output: bytes) -> None:
        try:
            ids = [item.id for item in _items.decode(output)]
        except UNREADABLE:
            ids = _ids_of(output)
        for item_id in ids:
            self.note_id(item_id)

    def note_id(self, item_id: str | None) -> None:
        """An output item's own id."""
        if item_id is None or item_id in self.item_ids or len(self.item_ids) == ITEMS_MAX:
            return
        if _ITEM_ID.fullmatch(item_id) is not None:
            self.item_ids.append(item_id)


def _ids_of(output: bytes) -> list[str | None]:
    """As msgspec reads them, where it refuses half a surrogate pair, or one item is of an unexpected shape."""
    try:
        items = json.loads(output)
    except UNREADABLE:
        return []
    found = [item.get("id") for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    return [item_id for item_id in found if isinstance(item_id, str)]


def read_fields(data: bytes) -> dict[str, bytes] | None:
    """The top-level members of a JSON object, each value as its bytes; None when `data` is not such an object.

    msgspec refuses half a surrogate pair and deep nesting even where nobody looks; an answer that has them was paid
    for all the same, so its members are then found by their brackets.
    """
    try:
        return {name: bytes(raw) for name, raw in _decoder.decode(data).items()}
    except UNREADABLE:
        scan = Scan(wanted=None, value_max=len(data))
        scan.feed(data)
        return scan.members if scan.complete else None


def text_of(raw: bytes | None) -> str | None:
    """The JSON string `raw`; None when it is anything else."""
    if raw is None or raw[:1] != b'"':
        return None
    try:
        return _text.decode(raw)
    except UNREADABLE:
        return None


def _name_of(raw: bytes | None) -> str | None:
    """The JSON string `raw` as it can be stored: PostgreSQL puts these into indexes, which take no long text."""
    text = text_of(raw)
    return None if text is None else storable(text[:NAME_CHARS_MAX])


def object_of(raw: bytes | None) -> bytes | None:
    """`raw` when it is a JSON object."""
    return raw if raw is not None and raw[:1] == b"{" else None


def read_body(body: bytes) -> Said:
    """`body`: one whole JSON object."""
    return said_of(read_fields(body))


def said_of(fields: dict[str, bytes] | None) -> Said:
    """What the members of a whole answer say; None when it could not be read."""
    said = Said(unsure=fields is None)
    said.note(fields or {})
    return said


def read_scan(scan: Scan) -> Said:
    """Of a body that is too large to keep, as far as it has come."""
    said = Said(unsure=not scan.complete or bool(scan.lost))
    said.note(scan.members)
    for item_id in scan.item_ids:
        said.note_id(text_of(item_id))
    return said


def read_status(body: bytes) -> str | None:
    """The `status` of a Response object (`completed`, `in_progress`, …); None when there is none."""
    return text_of((read_fields(body) or {}).get("status"))
