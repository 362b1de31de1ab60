"""Sweep: settle the calls that their own process never will. Exact where OpenAI can still be asked, else estimated.

An OPEN alone never proves that nothing was sent, so an orphan is never `void`. The keeper sweeps its own host, into a
journal of its own; a worker sweeps hosts that are lost (hosts/lost.py), into the ledger.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Final

import structlog

from gateway.kit.errors import DependencyDown
from gateway.kit.failpoints import Failpoint, pass_by
from gateway.openai.families.catalogue import SETTLES_LATER
from gateway.openai.upstream import Upstream
from gateway.usage.event import NoteRecord, OpenRecord, Orphan, UsageEvent, decode_note, decode_open
from gateway.usage.settle import Settler
from pricing.readers.body import UNFINISHED, Said, read_body, read_status

PATIENCE_S: Final = 600.0
"""Seconds for which a found orphan waits for OpenAI to answer, or to finish, before it is estimated."""
ASK_AGAIN_S: Final = 5.0
_log: Final = structlog.get_logger("gateway.sweep")


class Sweep:
    """Settles orphans."""

    def __init__(
        self,
        upstream: Upstream | None,
        settler: Settler,
        keep: Callable[[UsageEvent], Awaitable[None]],
        *,
        reason: str = "process_died",
        clock: Callable[[], float],
        failpoint: Failpoint = pass_by,
    ) -> None:
        """`keep` makes a SETTLE durable, or raises DependencyDown. Without an `upstream` nobody is asked: an estimate
        of a response that OpenAI keeps is made exact later (ledger/poll.py)."""
        self._upstream: Final = upstream
        self._settler: Final = settler
        self._keep: Final = keep
        self._reason: Final = reason
        self._clock: Final = clock
        self._failpoint: Final = failpoint
        self._done: set[str] = set()
        self.settled_total = 0
        """Orphans settled so far."""
        self._waiting_s: dict[str, tuple[float, float]] = {}
        """Orphans that OpenAI could not tell about yet: when first asked for, and when to ask again."""

    async def step_once(self, orphans: Sequence[Orphan]) -> int:
        """Settles what can be settled now; the others come again. How many were settled.

        Raises DependencyDown when a SETTLE cannot be kept.
        """
        settled, listed = 0, set()
        for orphan in orphans:
            opened = decode_open(orphan.opened)
            listed.add(opened.id)
            if opened.id in self._done:
                continue  # kept; whoever lists the orphans has not seen it yet
            if self._clock() < self._waiting_s.get(opened.id, (0, 0))[1]:
                continue
            self._failpoint("sweep.before")
            event = await self._value(opened, decode_note(orphan.note) if orphan.note else NoteRecord(opened.id))
            if event is None:
                continue
            await self._keep(event)
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
        reason, said = self._reason, None
        if self._upstream is not None and opened.endpoint in SETTLES_LATER and note.response_id is not None:
            try:
                said = await _ask(self._upstream, note.response_id)
            except DependencyDown as error:
                since, _ = self._waiting_s.get(opened.id, (now.timestamp(), 0))
                if now.timestamp() - since < PATIENCE_S:
                    self._waiting_s[opened.id] = (since, now.timestamp() + ASK_AGAIN_S)
                    return None
                reason = f"{self._reason}, {error.what} did not answer"
            if said is not None and said.usage is not None:
                return self._settler.settle_exact(opened, said, now, drained=True, metadata={"reason": reason})
        said = said or Said(response_id=note.response_id)
        return self._settler.settle_estimated(
            opened, said, now, reason, self._settler.by_bytes(opened, note.output_events)
        )


async def _ask(upstream: Upstream, response_id: str) -> Said | None:
    """What OpenAI kept of a response; None when it kept nothing. Raises DependencyDown while it cannot tell."""
    body = await upstream.stored_response(response_id)
    if body is not None and read_status(body) in UNFINISHED:
        raise DependencyDown("openai", "the response is still running")
    return None if body is None else read_body(body)
