"""INV-1: every call in this host's journal is in the ledger. Reads the journal once, while a gateway may run.

Only calls that the ledger lacks stay in memory: those in flight, and those that are lost.
"""

from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import datetime, timedelta
from itertools import islice
from typing import Final, NamedTuple

from gateway.audit.reads.journal import AuditedRecord, Journaled, unknown_ids
from gateway.audit.reads.snapshot import Offenders, Snapshot
from gateway.audit.result import EXAMPLES_MAX, InvariantResult, judge, not_checked
from gateway.kit.ids import unix_ms_of

BATCH_MAX: Final = 10_000
"""Records looked up in one question."""
_TITLE: Final = "completeness"
NO_JOURNAL: Final = "no journal here: run it on the host of `gateway serve`, with its GATEWAY_DATA_DIR"
_LOOK: Final = (
    "The journal still has these calls: see that serve and worker run and that gateway_journal_unconfirmed_events "
    "falls (they are shipped again and again), then audit again. What a failover or a restore of PostgreSQL has lost, "
    "`gateway journal resend` sends again. Keep the journal folder. A process that writes what "
    "does not read back loses calls: stop it, and look at its disk."
)


class Calls(NamedTuple):
    """What a journal holds, against the ledger."""

    met: Journaled
    calls: int
    """OPEN and SETTLE records that were looked up, repeats of one call within a batch counted once."""
    unknown: dict[str, datetime | None]
    """Calls that the ledger lacks: when they were settled, None for those that were not."""


async def read_calls(view: Snapshot, records: Iterable[AuditedRecord], met: Journaled) -> Calls:
    """Looks up every call of `records`. Raises DependencyDown, OSError."""
    unknown: dict[str, datetime | None] = {}
    calls = 0
    async for batch in _batches(records):
        latest: dict[str, datetime | None] = {}
        for record in batch:
            latest[record.event_id] = _choose_latest(record.settled_at, latest.get(record.event_id))
        calls += len(latest)
        for event_id in await unknown_ids(view, list(latest)):
            unknown[event_id] = _choose_latest(latest[event_id], unknown.get(event_id))
    return Calls(met, calls, unknown)


def _choose_latest(one: datetime | None, other: datetime | None) -> datetime | None:
    """A call may be settled twice, and one of the two may not read."""
    return max((at for at in (one, other) if at is not None), default=None)


async def _batches(records: Iterable[AuditedRecord]) -> AsyncIterator[list[AuditedRecord]]:
    source: Iterator[AuditedRecord] = iter(records)
    while batch := list(islice(source, BATCH_MAX)):
        yield batch


def completeness(read: Calls | None, now: datetime, grace_s: float) -> InvariantResult:
    """INV-1 completeness. Every call that this host has begun is a ledger row, in quarantine, or still running.

    `grace_s`: seconds that a settled call has to arrive in. On a breach: a call is settled and nowhere but in the
    journal. It is lost only if the journal goes too, so keep that folder. Or a process that is still running has
    written what nobody can read: its calls are lost, and so will be those to come.
    """
    if read is None:
        return not_checked("INV-1", _TITLE, NO_JOURNAL)
    limit = now - timedelta(seconds=grace_s)
    late = [event_id for event_id, settled in read.unknown.items() if settled is not None and settled < limit]
    figures = {
        "segments": read.met.segments,
        "calls": read.calls,
        "in flight": sum(settled is None for settled in read.unknown.values()),
        "on their way": sum(settled is not None and settled >= limit for settled in read.unknown.values()),
        "missing": len(late),
        "unreadable records": read.met.unreadable,
        "of living processes": read.met.unreadable_living,
    }
    broken = {
        "settled call that is not in the ledger": Offenders(len(late), tuple(sorted(late)[:EXAMPLES_MAX])),
        "unreadable record of a living process": Offenders(
            read.met.unreadable_living, tuple(read.met.written_by_living[:EXAMPLES_MAX])
        ),
    }
    torn = "unreadable records: a torn write of a killed process, or a disk that loses data (docs/operations.md)"
    return judge("INV-1", _TITLE, figures, broken, _LOOK, note=torn if read.met.unreadable else "")


def never_settled(read: Calls | None, now: datetime, open_max_s: float) -> Offenders:
    """Calls that began longer ago than any call may take, and that nobody settled or swept."""
    if read is None:
        return Offenders()
    limit_ms = int((now - timedelta(seconds=open_max_s)).timestamp() * 1000)
    old = [
        event_id for event_id, settled in read.unknown.items() if settled is None and unix_ms_of(event_id) < limit_ms
    ]
    return Offenders(len(old), tuple(sorted(old)[:EXAMPLES_MAX]))
