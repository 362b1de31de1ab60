"""Ship: what the journal holds goes to the Redis stream, again and again, until Postgres has it.

Redis may lose everything: an event counts as delivered only when its id is seen in the ledger.
Must not price, insert or judge; an OPEN whose writer is dead is handed to the sweeper.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import structlog

from gateway.journal.frames import NOTE, OPEN, SETTLE, id_of
from gateway.journal.reader import Record, Segment, Segments
from gateway.kit.errors import DependencyDown
from gateway.kit.failpoints import Failpoint, pass_by
from gateway.kit.ids import unix_ms_of
from gateway.ledger.store import Ledger
from gateway.ledger.stream import BEHIND_TTL_S, OWNER_TTL_S, Buffer
from gateway.usage.event import Orphan, is_readable

SETTLED_MAX: Final = 50_000
"""Settled calls held in memory at most; beyond it the journal is read no further until Postgres has caught up. Open
calls do not count: their SETTLE is still to be read."""
UNSENT_MAX: Final = 5_000
"""Events held whole, because Redis has not taken them; beyond it the journal is read no further."""
BATCH_MAX: Final = 1000
"""Ids asked for, or events sent, in one round trip."""
PATIENCE_MAX_S: Final = 30.0
LOOK_BEHIND_S: Final = 1.0
TELL_BEHIND_S: Final = BEHIND_TTL_S / 5
_NAMED: Final = re.compile(rb'\{"id":"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"')
"""How every payload begins: with the event id that we gave it (kit/ids)."""
_log: Final = structlog.get_logger("gateway.ship")


@dataclass(slots=True)
class JournaledCall:
    """One call as the journal tells it so far."""

    segments: list[Segment] = field(default_factory=list)
    opened: bytes | None = None
    note: bytes | None = None
    settled_at: tuple[Segment, int] | None = None
    later: tuple[Segment, int] | None = None
    """Another SETTLE: of a sweeper and of a process that was thought dead. The second may be the exact one."""
    stream_id: bytes | None = None
    due_s: float = 0.0
    patience_s: float = 0.0


class Ship:
    """Reads the journal of this host, ships SETTLEs, confirms them, finds orphans. One per journal folder."""

    def __init__(
        self,
        segments: Segments,
        buffer: Buffer,
        ledger: Ledger,
        *,
        confirm_after_s: float,
        monotonic: Callable[[], float],
        unix_ms: Callable[[], int],
        failpoint: Failpoint = pass_by,
    ) -> None:
        self._segments: Final = segments
        self._buffer: Final = buffer
        self._ledger: Final = ledger
        self._confirm_after_s: Final = confirm_after_s
        self._monotonic: Final = monotonic
        self._unix_ms: Final = unix_ms
        self._tell_at_s = monotonic()
        self._failpoint: Final = failpoint
        self._calls: Final[dict[str, JournaledCall]] = {}
        self._unsent: Final[dict[str, bytes]] = {}
        self._settled = 0
        self._changed: Final[set[str]] = set()
        """Calls that were opened, noted for the first time or sent since somebody asked for the changes."""
        self._noted: Final[set[str]] = set()
        self._reads_earlier = True
        """Whether what an earlier life of this keeper may have sent is still being read."""
        self._has_read_all = False
        self._sent_before: dict[int, bytes] | None = None
        """What the stream held at first and the journal has not shown yet: stream ids by the hash of the bytes."""

    async def step_once(self, *, is_last: bool = False) -> int:
        """Reads what is new, sends it, confirms what is due, or all where it may be the last time. Returns how many
        events were sent or confirmed.

        Raises DependencyDown when Redis or Postgres is away; nothing is lost by that, only later.
        """
        if self.unconfirmed < SETTLED_MAX and len(self._unsent) < UNSENT_MAX:
            self._segments.refresh()
            # Looked at only while it matters. What is not behind is read to its end in the next line.
            self._has_read_all = self._reads_earlier and not self._segments.any_behind()
            lost = self._segments.corrupt_living
            for record in self._segments.poll():
                if _NAMED.match(record.payload):
                    self._take(record)
                else:  # whole, and yet of no call: it must not stop all the others
                    record.segment.corrupt += 1
            if self._segments.corrupt_living > lost:
                _log.error("records of a living process do not read", records=self._segments.corrupt_living - lost)
        try:
            sent = await self._send()
            return sent + await self._confirm(is_last)
        finally:  # also in an outage of Postgres; last, because a full Redis must not keep us from confirming
            await self._tell_behind()

    def orphans(self, *, older_than_unix_ms: int) -> list[Orphan]:
        """OPENs without SETTLE whose writer is dead, or that are older than any call may be.

        Never one whose SETTLE may still lie unread: that would be an estimate of what is known.
        """
        found, unreadable = [], []
        writers: dict[tuple[str, str | None], tuple[bool, bool]] = {}
        for event_id, call in self._calls.items():
            if call.opened is None or call.settled_at is not None:
                continue
            writer = (call.segments[0].slot, call.segments[0].boot)
            if writer not in writers:
                writers[writer] = self._judge(*writer)
            gone, current = writers[writer]
            if gone or (current and unix_ms_of(event_id) < older_than_unix_ms):
                orphan = Orphan(call.opened, call.note)
                if is_readable(orphan, event_id):  # of settled calls nobody asks it, so not before
                    found.append(orphan)
                else:
                    unreadable.append(event_id)
        for event_id in unreadable:
            self._changed.add(event_id)
            segment = self._calls.pop(event_id).segments[0]
            segment.unconfirmed -= 1
            segment.corrupt += 1
            _log.error("an open call cannot be read, and is left out", id=event_id, segment=segment.path.name)
        return found

    def take_changes(self, *, notes: bool) -> tuple[dict[str, Orphan], list[str]]:
        """What has changed since it was last asked: calls that are open, as they are now, and calls of which the stream
        has the SETTLE. One that is settled and not yet sent is neither: until then its OPEN is all that others have.

        `notes`: also calls with another NOTE than their first, of which each has one a second.
        """
        if notes:
            self._changed.update(self._noted)
            self._noted.clear()
        opened: dict[str, Orphan] = {}
        closed = []
        for event_id in self._changed:
            call = self._calls.get(event_id)
            if call is not None and call.opened is not None:
                opened[event_id] = Orphan(call.opened, call.note)
            elif event_id not in self._unsent:
                closed.append(event_id)
        self._changed.clear()
        return opened, closed

    def opened(self) -> dict[str, Orphan]:
        """Every call that is open."""
        return {
            event_id: Orphan(call.opened, call.note)
            for event_id, call in self._calls.items()
            if call.opened is not None
        }

    def _judge(self, slot: str, boot: str | None) -> tuple[bool, bool]:
        """Whether a writer is dead and all that it wrote is read; whether the reading keeps up with its slot."""
        # Dead first, then read to the end: only in this order is a missing SETTLE final.
        gone = not self._segments.writer_lives(slot, boot) and self._segments.read_to_end(slot)
        return gone, not self._segments.is_behind(slot)

    @property
    def behind(self) -> bool:
        """Whether more of some slot waits to be read than one step reads."""
        return self._segments.any_behind()

    @property
    def open_calls(self) -> int:
        """Calls without a SETTLE."""
        return len(self._calls) - self._settled

    @property
    def unconfirmed(self) -> int:
        """Events settled but not yet seen in Postgres."""
        return self._settled

    def oldest_unix_ms(self) -> tuple[int | None, int | None]:
        """When the oldest call without a SETTLE began, and the oldest settled one not yet seen in Postgres."""
        # Calls are held in the order in which they were first read, so the first of either kind is about the oldest.
        opened = next((event_id for event_id, call in self._calls.items() if call.settled_at is None), None)
        settled = next((event_id for event_id, call in self._calls.items() if call.settled_at is not None), None)
        return (opened and unix_ms_of(opened)) or None, (settled and unix_ms_of(settled)) or None

    def _take(self, record: Record) -> None:
        event_id = id_of(record.payload)
        call = self._calls.get(event_id)
        if call is None:
            if record.kind == NOTE:
                return  # a note without its OPEN says nothing
            call = self._calls[event_id] = JournaledCall()
        if record.kind == NOTE:
            (self._noted if call.note else self._changed).add(event_id)
            call.note = record.payload
            return
        if record.segment not in call.segments:
            call.segments.append(record.segment)
            record.segment.unconfirmed += 1
        if record.kind == OPEN and call.settled_at is None:
            call.opened = record.payload
            self._changed.add(event_id)
        elif record.kind == SETTLE and call.settled_at is None:
            self._settled += 1
            call.settled_at = (record.segment, record.offset)
            call.opened = call.note = None
            self._unsent[event_id] = record.payload
        elif record.kind == SETTLE:
            call.later = (record.segment, record.offset)

    async def _send(self) -> int:
        sent = 0
        if self._unsent and self._reads_earlier:
            await self._recognize_sent()
            self._reads_earlier = not self._has_read_all
        while self._unsent:
            batch = list(self._unsent.items())[:BATCH_MAX]
            stream_ids = await self._buffer.append(batch)
            self._failpoint("ship.sent")
            for (event_id, _), stream_id in zip(batch, stream_ids, strict=True):
                self._mark_sent(event_id, stream_id)
            sent += len(batch)
        return sent

    async def _recognize_sent(self) -> None:
        """What an earlier life has sent, and the stream or PostgreSQL has, is not sent again: while PostgreSQL is away
        each life would add all of it once more. Both are asked themselves, so what they have lost is sent.

        By the bytes, not by the id, in the stream: it may have an estimate of the same call that somebody else has
        made.
        """
        if self._sent_before is None:
            self._sent_before = {hash(raw): stream_id async for raw, stream_id in self._buffer.places()}
        for event_id, raw in list(self._unsent.items()):
            stream_id = self._sent_before.pop(hash(raw), None)
            if stream_id is not None:
                self._mark_sent(event_id, stream_id)
        try:
            await self._forget_confirmed(list(self._unsent), but_estimates=True)
        except DependencyDown as error:
            _log.info("sent without asking whether it is there", detail=error.detail)

    async def _forget_confirmed(self, event_ids: list[str], *, but_estimates: bool = False) -> set[str]:
        """Forgets those of these settled calls that PostgreSQL has; returns their ids. Raises DependencyDown.

        `but_estimates`: not where the row is an estimate. Others may have made it while this host was away, and what
        the journal has may be the exact one, which corrects it.
        """
        found: set[str] = set()
        for start in range(0, len(event_ids), BATCH_MAX):
            known = await self._ledger.find_confirmed(event_ids[start : start + BATCH_MAX])
            if known and but_estimates:
                known -= {row.id for row in await self._ledger.estimates(sorted(known))}
            self._failpoint("ship.confirmed")
            for event_id in known:
                self._forget(event_id)
            found |= known
        return found

    def _mark_sent(self, event_id: str, stream_id: bytes) -> None:
        del self._unsent[event_id]
        call = self._calls[event_id]
        call.stream_id, call.due_s = stream_id, self._monotonic() + self._confirm_after_s
        self._changed.add(event_id)

    async def _tell_behind(self) -> None:
        """Says in good time that owners may expire in Redis before Postgres has them. From then on an object that
        neither knows is not denied to its owner: whose it is cannot be known (proxy/owners.py)."""
        now = self._monotonic()
        if now < self._tell_at_s:
            return
        _, settled = self.oldest_unix_ms()
        is_behind = settled is not None and self._unix_ms() - settled > OWNER_TTL_S * 1000 // 2
        if is_behind:
            await self._buffer.tell_behind()
        self._tell_at_s = now + (TELL_BEHIND_S if is_behind else LOOK_BEHIND_S)

    async def _confirm(self, is_last: bool) -> int:
        """Forgets what Postgres has; sends again what neither Postgres nor the stream has."""
        now = self._monotonic()
        due = [
            event_id
            for event_id, call in self._calls.items()
            if call.settled_at is not None and event_id not in self._unsent and (is_last or call.due_s <= now)
        ]
        confirmed = 0
        for start in range(0, len(due), BATCH_MAX):
            batch = due[start : start + BATCH_MAX]
            known = await self._forget_confirmed(batch)
            confirmed += len(known)
            await self._resend([event_id for event_id in batch if event_id not in known])
        return confirmed

    def _forget(self, event_id: str) -> None:
        """A call that Postgres has; when it was settled twice, the second is sent now that the first is there."""
        call = self._calls.pop(event_id)
        self._settled -= 1
        self._unsent.pop(event_id, None)
        for segment in call.segments:
            segment.unconfirmed -= 1
        payload = None if call.later is None else self._reread(event_id, *call.later)
        if call.later is not None and payload is not None:
            segment = call.later[0]
            segment.unconfirmed += 1
            self._calls[event_id] = JournaledCall(segments=[segment], settled_at=call.later)
            self._settled += 1
            self._unsent[event_id] = payload

    async def _resend(self, missing: list[str]) -> None:
        """An event that still waits in the stream is left there, with growing patience; a lost one is sent again."""
        sent = [stream_id for event_id in missing if (stream_id := self._calls[event_id].stream_id) is not None]
        waiting = await self._buffer.waiting(sent)
        now = self._monotonic()
        for event_id in missing:
            call = self._calls[event_id]
            if call.stream_id in waiting:
                call.patience_s = min(PATIENCE_MAX_S, max(self._confirm_after_s, call.patience_s * 2))
                call.due_s = now + call.patience_s
            elif call.settled_at is not None:
                # It may have been written between the two questions; the ledger then ignores the repeat.
                payload = self._reread(event_id, *call.settled_at)
                if payload is not None:
                    self._unsent[event_id] = payload
                call.due_s = now + PATIENCE_MAX_S

    def _reread(self, event_id: str, segment: Segment, offset: int) -> bytes | None:
        """The SETTLE from the disk again; None when the disk has lost it, which must not stop the other calls."""
        try:
            payload = self._segments.reread(segment, offset)
            if id_of(payload) == event_id:
                return payload
            found = "another record"
        except (ValueError, OSError) as error:
            found = str(error)
        _log.error("settle lost from disk and stream", id=event_id, segment=segment.path.name, found=found)
        return None
