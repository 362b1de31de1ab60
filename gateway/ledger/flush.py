"""Flush: the batch writer. Reads the Redis stream, commits every entry to the ledger, then acknowledges it.

Never acknowledges before the ledger has committed, and never prices or repairs an entry:
a repeat is harmless, an early acknowledgement is lost money. Any number of writers may run, on any host.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

import structlog

from gateway.kit.errors import DependencyDown
from gateway.kit.failpoints import Failpoint, pass_by
from gateway.kit.ids import is_uuid
from gateway.ledger.correct import correct_settled
from gateway.ledger.rows import LedgerEntry, find_owned
from gateway.ledger.store import Ledger, Outcome
from gateway.ledger.stream import Buffer, StreamEntry

BLOCK_MS_MAX: Final = 500
"""Milliseconds a read waits for a first entry; a stop is noticed after that at the latest."""
SHOWN_MAX: Final = 10
"""Ids in a log line."""


class Flush:
    """One writer. `consumer` must be unique per process and life (host, pid and a random part)."""

    def __init__(
        self,
        buffer: Buffer,
        ledger: Ledger,
        *,
        consumer: str,
        batch_rows_max: int,
        interval_s: float,
        claim_idle_s: float,
        monotonic: Callable[[], float],
        now: Callable[[], datetime],
        failpoint: Failpoint = pass_by,
    ) -> None:
        self._buffer: Final = buffer
        self._ledger: Final = ledger
        self._consumer: Final = consumer
        self._batch_rows_max: Final = batch_rows_max
        self._interval_s: Final = interval_s
        self._claim_idle_s: Final = claim_idle_s
        self._monotonic: Final = monotonic
        self._now: Final = now
        self._failpoint: Final = failpoint
        self._log: Final = structlog.get_logger("flush")
        self._held: list[StreamEntry] = []
        self._claim_at_s = monotonic()
        self.behind = False
        """Whether the last batch was full: more is waiting than one writer commits at its pace."""
        self.entries_total = 0
        """Entries committed by this writer."""
        self.quarantined_total = 0
        """Of these, entries that this writer put into quarantine. Anything but 0 wants a person to look."""

    async def step_once(self, *, block_ms: int = 0) -> int:
        """One batch: read, insert, acknowledge. Returns how many entries it committed.

        Waits `block_ms` at most for a first entry. Raises DependencyDown when Redis or Postgres is away; what was
        read by then is kept and comes first in the next step.
        """
        if not self._held:
            self._held = await self._take(block_ms)
        entries = self._held
        self.behind = len(entries) >= self._batch_rows_max
        if not entries:
            return 0
        self._failpoint("flush.read")
        refused: dict[str, list[str]] = {}
        outcome = await self._ledger.insert_batch(
            [LedgerEntry(entry.event_id, entry.raw, entry.distrust) for entry in entries],
            refused=lambda event_id, kind: refused.setdefault(kind, []).append(event_id),
        )
        if outcome.duplicates:
            raws = [entry.raw for entry in entries if entry.distrust is None]
            await correct_settled(self._ledger, raws, self._now())
        self._failpoint("flush.committed")
        await self._buffer.ack([entry.stream_id for entry in entries])
        self._failpoint("flush.acked")
        self._held = []
        self._count(outcome, len(entries), refused)
        await self._forget_owners(entries, all_new=outcome.inserted == len(entries))
        return len(entries)

    async def turn_pause_s(self, *, helps: "Flush | None" = None) -> float:
        """One step, and the seconds until the next. Raises DependencyDown.

        One that `helps` another only steps while that one is behind, so that PostgreSQL is at work on one batch while
        the next is read; without a backlog two would only make two small batches out of one.
        """
        if helps is not None and not helps.behind and not self._held:
            return self._interval_s
        handled = await self.step_once(block_ms=BLOCK_MS_MAX)
        # A batch that was not full is worth a pause: the next one is then bigger, and cheaper per row.
        return self._interval_s if 0 < handled < self._batch_rows_max else 0.0

    async def leave(self) -> None:
        """A writer that goes in order takes its name out of the group; what it still holds is taken over."""
        try:
            await self._buffer.forget_consumer(self._consumer)
        except DependencyDown as error:
            self._log.info("flush left its name behind", detail=error.detail)

    async def _take(self, block_ms: int) -> list[StreamEntry]:
        """Now and then what another writer left lying, else what is new."""
        now = self._monotonic()
        if now >= self._claim_at_s:
            # Not before the full interval after a look that found nothing: looking walks the whole pending list.
            claimed = await self._buffer.claim(self._consumer, int(self._claim_idle_s * 1000), self._batch_rows_max)
            if claimed:
                self._log.info("flush took over entries", entries=len(claimed))
                return claimed
            self._claim_at_s = now + self._claim_idle_s
        return await self._buffer.read(self._consumer, self._batch_rows_max, block_ms)

    async def _forget_owners(self, entries: list[StreamEntry], *, all_new: bool) -> None:
        """Postgres has committed whose objects these are; in Redis they would only take room until they expire.

        Whoever looks asks Redis first and Postgres after it, so one that is gone here is found there.
        """
        owners: dict[str, str] = {}
        for entry in entries:
            if entry.distrust is None:
                owners |= find_owned(entry.raw)
        if not owners:
            return
        try:
            if not all_new:  # an entry may be in quarantine, and Postgres not know its objects
                known = await self._ledger.find_objects(list(owners))
                await self._buffer.keep_owners([object_id for object_id in owners if object_id not in known])
                owners = {object_id: owners[object_id] for object_id in known}
            await self._buffer.forget_owners(owners)
        except DependencyDown as error:
            self._log.info("owners stay in redis until they expire", objects=len(owners), detail=error.detail)

    def _count(self, outcome: Outcome, entries: int, refused: Mapping[str, Sequence[str]]) -> None:
        self.entries_total += entries
        self.quarantined_total += outcome.quarantined
        for kind, event_ids in refused.items():
            # An id that is none of ours may be anything.
            shown = [event_id for event_id in event_ids if is_uuid(event_id)][:SHOWN_MAX]
            self._log.error("usage in quarantine", entries=len(event_ids), reason=kind, ids=shown)
