"""A journal on a disk, what ships it, and a clock of the test's own."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

from gateway.accounts.store import Accounts
from gateway.journal.frames import OPEN, SETTLE
from gateway.journal.reader import Segments
from gateway.journal.writer import Journal
from gateway.ledger.rows import LedgerEntry
from gateway.ledger.ship import Ship
from gateway.ledger.store import Ledger
from gateway.ledger.stream import Buffer
from gateway.usage.event import OpenRecord, UsageEvent, encode
from tests.support.events import AT, call, new_id

RANDOM = Random(7)
LONG_AGO = 0


class JournalShipping:
    """A journal, and what ships it, with a clock of the test's own."""

    def __init__(self, folder: Path, buffer: Buffer, ledger: Ledger, user_id: str) -> None:
        self.folder, self.buffer, self.ledger, self.user_id = folder, buffer, ledger, user_id
        self.now_s = 0.0
        self.unix_ms = 0
        self.journal = self.writer("w0")
        self.start()

    def writer(self, slot: str) -> Journal:
        return Journal(self.folder, slot, f"boot-{slot}", segment_bytes_max=8192, reserve_bytes=0, unix_ms=lambda: 1)

    def start(self, buffer: Buffer | None = None) -> None:
        """A new shipping process: it knows what the disk says."""
        self.segments = Segments(self.folder)
        self.ship = Ship(
            self.segments,
            buffer or self.buffer,
            self.ledger,
            confirm_after_s=2,
            monotonic=lambda: self.now_s,
            unix_ms=lambda: self.unix_ms,
        )

    def event(self) -> UsageEvent:
        return call(self.user_id, new_id(RANDOM))

    async def settle(self, count: int = 1) -> list[UsageEvent]:
        events = [self.event() for _ in range(count)]
        for event in events:
            await self.journal.append(OPEN, encode(opened(event.id)))
            await self.journal.append(SETTLE, encode(event))
        return events

    async def flush(self) -> int:
        entries = await self.buffer.read("writer", 10_000, 0)
        await self.ledger.insert_batch([LedgerEntry(entry.event_id, entry.raw) for entry in entries])
        await self.buffer.ack([entry.stream_id for entry in entries])
        return len(entries)

    async def after(self, seconds: float) -> int:
        self.now_s += seconds
        return await self.ship.step_once()


def opened(event_id: str, **changes: Any) -> OpenRecord:
    fields = {"endpoint": "chat", "model": "gpt-5-mini", "started_at": AT, "text_bytes": 400, "user_id": "u"}
    return OpenRecord(**{"id": event_id, **fields, **changes})


@contextlib.asynccontextmanager
async def open_shipping(folder: Path, buffer: Buffer, ledger: Ledger) -> AsyncIterator[JournalShipping]:
    """Shipping with one user and an open journal."""
    made = JournalShipping(
        folder / "journal", buffer, ledger, await Accounts(ledger.pool).create_user("owner@example.com")
    )
    made.journal.open()
    try:
        yield made
    finally:
        made.journal.close()
