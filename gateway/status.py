"""What each kind of process says of itself once a second: whether it can work, and its metrics. Reads only."""

import resource
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Final

from gateway.core.errors import DependencyDown
from gateway.core.metrics import Sample, Status
from gateway.edges.buffer import Buffer
from gateway.edges.journal import Journal
from gateway.edges.ledger import Ledger
from gateway.edges.outbox import Outbox
from gateway.edges.segments import Segments
from gateway.flows.flush import Flush
from gateway.flows.proxy.metrics import CallMetrics
from gateway.flows.proxy.record import Recorder
from gateway.flows.proxy.relay import Drains
from gateway.flows.ship import Ship
from gateway.flows.sweep import Sweep

LOOK_EVERY_S: Final = 5.0
"""Seconds between two looks at the stream and the outbox."""
_PAGE: Final = resource.getpagesize()


class Waiting:
    """The dependency that a background process waits for; None while it works."""

    def __init__(self) -> None:
        self.on: str | None = None


def of_proxy(name: str, metrics: CallMetrics, recorder: Recorder, journal: Journal, drains: Drains) -> Status:
    """A proxy fails when calls cannot be recorded."""
    own = (
        Sample("gateway_drains_running", (), drains.running),
        Sample("gateway_settles_not_on_disk", (), recorder.stranded),
        journal.commits.sample("gateway_journal_commit_seconds"),
    )
    return Status(recorder.failure, None, (*metrics.samples(), *own, *_process(name)))


def of_keeper(
    waiting: Waiting, ship: Ship, sweep: Sweep, segments: Segments, journal: Journal, clock: Callable[[], float]
) -> Status:
    """The journal as the keeper sees it. It waits when Redis, PostgreSQL or, for an orphan, the disk is away."""
    opened, settled = ship.oldest_unix_ms()
    return Status(
        journal.failure,
        waiting.on,
        (
            Sample("gateway_journal_bytes", (), segments.bytes_on_disk()),
            Sample("gateway_journal_corrupt_records", (), segments.corrupt),
            Sample("gateway_journal_open_calls", (), ship.open_calls),
            Sample("gateway_journal_oldest_open_seconds", (), _age(opened, clock())),
            Sample("gateway_journal_unconfirmed_events", (), ship.unconfirmed),
            Sample("gateway_journal_oldest_unconfirmed_seconds", (), _age(settled, clock())),
            Sample("gateway_swept_total", (), sweep.settled_total),
            Sample("gateway_waiting", ("keeper",), int(waiting.on is not None)),
            *_process("keeper"),
        ),
    )


class Backlog:
    """What waits in Redis and PostgreSQL, looked at now and then: a scrape must cost neither of them anything."""

    def __init__(self, buffer: Buffer, ledger: Ledger, outbox: Outbox) -> None:
        self._buffer: Final = buffer
        self._ledger: Final = ledger
        self._outbox: Final = outbox
        self._samples: tuple[Sample, ...] = ()
        self.waiting: Final = Waiting()

    async def watch(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        """Looks every LOOK_EVERY_S seconds, until cancelled."""
        while True:
            try:
                self._samples = (*await self._look(),)
                self.waiting.on = None
            except DependencyDown as error:
                self.waiting.on = error.what
            await sleep(LOOK_EVERY_S)

    async def _look(self) -> list[Sample]:
        depth = await self._buffer.depth()
        outbox = await self._outbox.status()
        return [
            Sample("gateway_stream_entries", (), depth.entries),
            Sample("gateway_stream_unacknowledged", (), depth.unacknowledged),
            Sample("gateway_quarantine_rows", (), await self._ledger.quarantined()),
            *(Sample("gateway_meter_events", (state,), count) for state, count in outbox.counts.items()),
            Sample("gateway_unreported_users", (), outbox.users_without_customer),
        ]

    def samples(self) -> Iterable[Sample]:
        """What the last look that succeeded has found."""
        return self._samples


def of_worker(flush: Flush, backlog: Backlog) -> Status:
    """A worker waits when Redis or PostgreSQL is away; nothing is lost by that."""
    waiting = backlog.waiting.on
    return Status(
        None,
        waiting,
        (
            Sample("gateway_flushed_total", (), flush.entries_total),
            Sample("gateway_quarantined_total", (), flush.quarantined_total),
            Sample("gateway_waiting", ("worker",), int(waiting is not None)),
            *backlog.samples(),
            *_process("worker"),
        ),
    )


def _age(unix_ms: int | None, now_s: float) -> float:
    return 0.0 if unix_ms is None else max(0.0, now_s - unix_ms / 1000)


def _process(name: str) -> tuple[Sample, ...]:
    used = (Sample("gateway_process_cpu_seconds_total", (name,), round(time.process_time(), 3)),)
    if sys.platform != "linux":
        return used
    resident = int(Path("/proc/self/statm").read_text("ascii").split()[1]) * _PAGE
    return (*used, Sample("gateway_process_resident_bytes", (name,), resident))
