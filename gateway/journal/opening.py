"""Opens the journal of a slot from settings; the caller's stack closes it."""

from contextlib import AsyncExitStack
from uuid import uuid4

from gateway.config.settings import Settings
from gateway.journal.writer import Journal
from gateway.kit.clock import unix_ms


def open_journal(stack: AsyncExitStack, settings: Settings, slot: str) -> Journal:
    """The journal of `slot`, closed by the stack. Raises SlotTaken or DependencyDown."""
    journal = Journal(
        settings.gateway_data_dir / "journal",
        slot,
        str(uuid4()),
        segment_bytes_max=settings.journal.segment_bytes_max,
        reserve_bytes=settings.journal.reserve_bytes,
        unix_ms=unix_ms,
    )
    journal.open()
    stack.callback(journal.close)
    return journal
