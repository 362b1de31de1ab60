"""Ledger rows as a pack has them, and the chain over all of them. Pure.

`rows.jsonl.xz` has a line for each block of rows: a JSON object of columns, each with one value for each row of the
block. Beside each other, values of one kind compress well. The line, without its line feed, is the canonical form of
these rows. The chain is sha256(chain before ‖ line), so that no row can be changed, left out, added or moved without
every later link being another one.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from hashlib import sha256
from types import GenericAlias
from typing import Any, Final

import msgspec

BLOCK_ROWS: Final = 2000
"""Rows of one line, and in memory at a time."""
_SEED: Final = b"gateway pack 1\n"


class PackRow(msgspec.Struct, frozen=True):
    """One row of `openai_usage`. Amounts are nano-USD, instants UTC."""

    id: str
    booked_at: datetime
    completed_at: datetime
    started_at: datetime
    inserted_at: datetime
    user_id: str
    customer_id: str | None
    api_key_id: str | None
    meeting_id: str | None
    adjusts: str | None
    endpoint: str
    model: str
    service_tier: str | None
    evidence: str
    prompt_tokens: int | None
    completion_tokens: int | None
    total_tokens: int | None
    cost_nano: int | None
    billed_nano: int | None
    price_version: str
    plan_version: str | None
    books_version: int
    response_id: str | None
    request_id: str | None
    cost_lines: msgspec.Raw
    usage: msgspec.Raw
    """The usage block as OpenAI sent it."""
    usage_raw: bytes | None
    metadata: msgspec.Raw


_NAMES: Final = PackRow.__struct_fields__
_columns: Final = msgspec.defstruct(
    "Columns",
    [(field.name, GenericAlias(list, (field.type,))) for field in msgspec.structs.fields(PackRow)],
    forbid_unknown_fields=True,
)
_decoder: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder(_columns)
_encoder: Final = msgspec.json.Encoder()


def encode_rows(rows: Sequence[PackRow]) -> bytes:
    """The canonical form of a block."""
    columns: Iterable[Any] = zip(*map(msgspec.structs.astuple, rows), strict=True)
    return _encoder.encode(dict(zip(_NAMES, columns, strict=True)))


def decode_rows(line: bytes) -> list[PackRow]:
    """The rows of a line. Raises ValueError."""
    columns = msgspec.structs.astuple(_decoder.decode(line))
    return [PackRow(*values) for values in zip(*columns, strict=True)]


class Chain:
    """The chain over the rows of one month."""

    def __init__(self, month: str) -> None:
        self.head = sha256(_SEED + month.encode()).digest()
        self.rows = 0

    def add(self, line: bytes, rows: int) -> None:
        """The next block, in its canonical form."""
        self.head = sha256(self.head + line).digest()
        self.rows += rows
