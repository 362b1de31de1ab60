"""One ledger row as a pack has it, and the chain over all rows. Pure.

The canonical form of a row is its line in `rows.jsonl.gz`, without the line feed: JSON with the fields in the order
below, absent where they are null. The chain is sha256(chain before ‖ line), so that no row can be changed, left out,
added or moved without every later link being another one.
"""

from datetime import datetime
from hashlib import sha256
from typing import Final

import msgspec

from gateway.usage.usage_block import NO_USAGE

LINKS_EVERY: Final = 1000
"""Rows between two links that are written down. Each of them costs 64 bytes that cannot be compressed."""
_SEED: Final = b"gateway pack 1\n"


class PackRow(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """One row of `openai_usage`. Amounts are nano-USD, instants UTC."""

    id: str
    booked_at: datetime
    completed_at: datetime
    started_at: datetime
    inserted_at: datetime
    user_id: str
    customer_id: str | None = None
    api_key_id: str | None = None
    meeting_id: str | None = None
    adjusts: str | None = None
    endpoint: str
    model: str
    service_tier: str | None = None
    evidence: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cost_nano: int | None = None
    billed_nano: int | None = None
    price_version: str
    plan_version: str | None = None
    books_version: int
    response_id: str | None = None
    request_id: str | None = None
    cost_lines: msgspec.Raw
    usage: msgspec.Raw = NO_USAGE
    """The usage block as OpenAI sent it."""
    usage_raw: bytes | None = None
    metadata: msgspec.Raw


_decoder: Final = msgspec.json.Decoder(PackRow)
_encoder: Final = msgspec.json.Encoder()


def encode_row(row: PackRow) -> bytes:
    """Its canonical form."""
    return _encoder.encode(row)


def decode_row(line: bytes) -> PackRow:
    """The row of a line. Raises msgspec.DecodeError."""
    return _decoder.decode(line)


class Chain:
    """The chain over the rows of one month."""

    def __init__(self, month: str) -> None:
        self.head = sha256(_SEED + month.encode()).digest()
        self.rows = 0

    def add(self, line: bytes) -> None:
        """The next row, in its canonical form."""
        self.head = sha256(self.head + line).digest()
        self.rows += 1

    @property
    def is_link(self) -> bool:
        """Whether the link after this row is written down."""
        return self.rows % LINKS_EVERY == 0
