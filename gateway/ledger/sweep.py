"""Sweep: settle the calls that their own process never will. Exact where OpenAI can still be asked, else estimated.

An OPEN alone never proves that nothing was sent, so an orphan is never `void`. The SETTLE
goes through a journal of our own and then takes the same path as every other event.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

import structlog

from gateway.journal.frames import SETTLE
from gateway.journal.writer import Journal
from gateway.kit.errors import DependencyDown
from gateway.kit.failpoints import Failpoint, pass_by
from gateway.openai.families.catalogue import SETTLES_LATER
from gateway.openai.upstream import Upstream
from gateway.usage.event import NoteRecord, OpenRecord, Orphan, UsageEvent, decode_note, decode_open, encode
from gateway.usage.settle import Settler
from pricing.readers.body import UNFINISHED, Said, read_body, read_status

PATIENCE_S: Final = 600.0
"""Seconds for which a found orphan waits for OpenAI to answer, or to finish, before it is estimated."""
ASK_AGAIN_S: Final = 5.0
_log: Final = structlog.get_logger("gateway.sweep")


class Sweep:
    """Settles orphans of one journal folder."""

    def __init__(
        self,
        upstream: Upstream,
        settler: Settler,
        journal: Journal,
        *,
        clock: Callable[[], float],
        failpoint: Failpoint = pass_by,
    ) -> None:
        self._upstream: Final = upstream
        self._settler: Final = settler
        self._journal: Final = journal
        self._clock: Final = clock
        self._failpoint: Final = failpoint
        self._done: set[str] = set()
        self.settled_total = 0
        """Orphans settled so far."""
        self._waiting_s: dict[str, tuple[float, float]] = {}
        """Orphans that OpenAI could not tell about yet: when first asked for, and when to ask again."""

    async def step_once(self, orphans: Sequence[Orphan]) -> int:
        """Settles what can be settled now; the others come again. How many were settled.

        Raises DependencyDown when the journal refuses the SETTLE.
        """
        settled, listed = 0, set()
        for orphan in orphans:
            opened = decode_open(orphan.opened)
            listed.add(opened.id)
            if opened.id in self._done:
                continue  # written; the journal's reader has not come to it yet
            if self._clock() < self._waiting_s.get(opened.id, (0, 0))[1]:
                continue
            self._failpoint("sweep.before")
            event = await self._value(opened, decode_note(orphan.note) if orphan.note else NoteRecord(opened.id))
            if event is None:
                continue
            await self._journal.append(SETTLE, encode(event))
            self._failpoint("sweep.settled")
            self._done.add(event.id)
            settled += 1
            self.settled_total += 1
            _log.warning("orphan settled", id=event.id, evidence=event.evidence, endpoint=event.endpoint)
        self._done &= listed
        self._waiting_s = {event_id: times for event_id, times in self._waiting_s.items() if event_id in listed}
        return settled

    async def _value(self, opened: OpenRecord, note: NoteRecord) -> UsageEvent | None:
        """The event of an orphan, or None while OpenAI may still say more."""
        now = datetime.fromtimestamp(self._clock(), UTC)
        reason, said = "process_died", None
        if opened.endpoint in SETTLES_LATER and note.response_id is not None:
            try:
                said = await self._ask(note.response_id)
            except DependencyDown as error:
                since, _ = self._waiting_s.get(opened.id, (now.timestamp(), 0))
                if now.timestamp() - since < PATIENCE_S:
                    self._waiting_s[opened.id] = (since, now.timestamp() + ASK_AGAIN_S)
                    return None
                reason = f"process_died, {error.what} did not answer"
            if said is not None and said.usage is not None:
                return self._settler.settle_exact(opened, said, now, drained=True, metadata={"reason": reason})
        said = said or Said(response_id=note.response_id)
        return self._settler.settle_estimated(
            opened, said, now, reason, self._settler.by_bytes(opened, note.output_events)
        )

    async def _ask(self, response_id: str) -> Said | None:
        """What OpenAI kept of a response; None when it kept nothing. Raises DependencyDown while it cannot tell."""
        body = await self._upstream.stored_response(response_id)
        if body is not None and read_status(body) in UNFINISHED:
            raise DependencyDown("openai", "the response is still running")
        return None if body is None else read_body(body)
