"""The keeper: one per journal folder. Ships what the journal holds, confirms it in PostgreSQL, sweeps what died."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Final

import structlog

import pricing
import pricing.data
from gateway.config.settings import Settings, require_values
from gateway.hosts.identity import read_host
from gateway.hosts.open_calls import OpenCalls
from gateway.hosts.opening import lease_s, open_calls_in_flight
from gateway.hosts.presence import Presence
from gateway.hosts.store import Hosts
from gateway.journal.folder import living_slots
from gateway.journal.frames import SETTLE
from gateway.journal.opening import open_journal
from gateway.journal.reader import Segments
from gateway.journal.writer import Journal
from gateway.kit.clock import unix_ms
from gateway.kit.errors import DependencyDown
from gateway.kit.loops import Loops
from gateway.kit.metrics import Sample, Status
from gateway.ledger.opening import build_ledger, open_buffer
from gateway.ledger.ship import Ship
from gateway.ledger.store import Ledger
from gateway.ledger.sweep import Sweep
from gateway.openai.opening import open_upstream
from gateway.processes import vitals as process
from gateway.processes.arguments import ProcessArguments
from gateway.processes.exit_status import CallsStay
from gateway.processes.supervisor import Ready
from gateway.stores.opening import open_process_pool
from gateway.usage.event import encode
from gateway.usage.opening import build_settler
from gateway.usage.plan_store import FollowPlans

SLOT: Final = "keeper"
"""Of the journal."""
STEP_S: Final = 0.1
"""Seconds between two steps without a backlog: a pause makes the next one larger, and cheaper per call."""
CONNECTIONS_MAX: Final = 1
"""To PostgreSQL."""
RETIRE_EVERY_S: Final = 60.0
_log: Final = structlog.get_logger("gateway.keeper")


async def run(settings: Settings, arguments: ProcessArguments, stop: asyncio.Event, ready: Ready) -> None:
    """Ships, confirms and sweeps this host's journal until `stop`, and once more after it."""
    values = require_values(settings, "database_url", "redis_url", "openai_api_key")
    async with AsyncExitStack() as stack:
        journal = open_journal(stack, settings, SLOT)
        buffer = open_buffer(stack, settings, values["redis_url"])
        pool = await open_process_pool(stack, settings, "keeper", CONNECTIONS_MAX)
        ledger, plans = build_ledger(settings, pool), FollowPlans(pool, monotonic=time.monotonic)
        upstream = open_upstream(stack, settings, values["openai_api_key"])
        arguments.on_new_secret("openai_api_key", upstream.use_key)
        settler = build_settler(settings, pricing.parse(pricing.data.read_texts()), plans.known)
        segments = Segments(settings.gateway_data_dir / "journal")
        ship = Ship(
            segments,
            buffer,
            ledger,
            confirm_after_s=settings.journal.confirm_after_s,
            monotonic=time.monotonic,
            unix_ms=unix_ms,
            failpoint=arguments.failpoint,
        )
        sweep = Sweep(
            upstream,
            settler,
            lambda event: journal.append(SETTLE, encode(event)),
            clock=time.time,
            failpoint=arguments.failpoint,
        )
        calls = open_calls_in_flight(stack, settings, values["redis_url"])
        presence = build_presence(settings, ship, calls, Hosts(pool), ledger)
        retire_at = time.monotonic() + RETIRE_EVERY_S

        async def turn(*, is_last: bool = False) -> float:
            nonlocal retire_at
            behind = await ship.step_once(is_last=is_last) > 0 and ship.behind
            oldest = unix_ms() - int(settings.journal.open_max_s * 1000)
            orphans = ship.orphans(older_than_unix_ms=oldest)
            if orphans:  # nobody waits for them, so they wait for the plans
                await plans.refresh()
            await sweep.step_once(orphans)
            if time.monotonic() >= retire_at:
                segments.retire(now_s=time.time(), keep_s=settings.journal.keep_s)
                retire_at = time.monotonic() + RETIRE_EVERY_S
            return 0.0 if behind else STEP_S

        loops = Loops(uniform=random.uniform)
        loops.paced("journal", turn, finishes=True)
        loops.every("open calls", presence.show_calls, every_s=STEP_S)
        loops.every("host", presence.renew, every_s=settings.hosts.renew_s)
        ready(partial(status, loops, ship, sweep, segments, journal, time.time))
        async with loops:
            await loops.run_until(stop)
        folder, within_s = settings.gateway_data_dir / "journal", settings.journal.stop_s
        if arguments.leaving():  # another keeper reads on at once
            within_s = 0.0
        await finish(partial(turn, is_last=True), ship, presence, folder, within_s=within_s)


async def finish(
    turn: Callable[[], Awaitable[float]], ship: Ship, presence: Presence, folder: Path, *, within_s: float
) -> None:
    """After the loops have ended: what the last calls have left is shipped, and PostgreSQL has it. Raises CallsStay."""
    until = time.monotonic() + within_s
    try:
        await turn()
        while (ship.behind or ship.open_calls or ship.unconfirmed) and time.monotonic() < until:
            await asyncio.sleep(STEP_S)
            await turn()
    except DependencyDown as error:
        _log.warning("not all is shipped", what=error.what, detail=error.detail)
    if living_slots(folder) - {SLOT}:
        return  # proxies that another keeper reads: this host goes on
    left = ship.open_calls + ship.unconfirmed
    try:
        await (presence.show_calls() if left or ship.behind else presence.leave())
    except DependencyDown as error:
        _log.warning("others hear of this stop when the lease ends", what=error.what, detail=error.detail)
    if left or ship.behind:
        at_least = "at least " if ship.behind else ""
        _log.error("calls stay on the disk", calls=left, more_unread=ship.behind, folder=str(folder))
        raise CallsStay(
            f"{at_least}{left} call(s) that PostgreSQL does not have stay in {folder}; keep this folder: "
            "the next start ships them, and `gateway journal inspect` lists them"
        )


def build_presence(settings: Settings, ship: Ship, calls: OpenCalls, hosts: Hosts, ledger: Ledger) -> Presence:
    """This host as others know it."""
    return Presence(
        read_host(settings.gateway_data_dir),
        ship,
        calls,
        hosts,
        ledger,
        lease_s=lease_s(settings),
        renew_s=settings.hosts.renew_s,
        monotonic=time.monotonic,
    )


def status(
    loops: Loops,
    ship: Ship,
    sweep: Sweep,
    segments: Segments,
    journal: Journal,
    clock: Callable[[], float],
) -> Status:
    """The journal as the keeper sees it. It waits when Redis, PostgreSQL or, for an orphan, the disk is away."""
    opened, settled = ship.oldest_unix_ms()
    return Status(
        journal.failure or loops.failure,
        loops.waiting_on,
        (
            Sample("gateway_journal_bytes", (), segments.bytes_on_disk()),
            Sample("gateway_journal_corrupt_records", (), segments.corrupt),
            Sample("gateway_journal_corrupt_living_records", (), segments.corrupt_living),
            Sample("gateway_journal_open_calls", (), ship.open_calls),
            Sample("gateway_journal_oldest_open_seconds", (), _age(opened, clock())),
            Sample("gateway_journal_unconfirmed_events", (), ship.unconfirmed),
            Sample("gateway_journal_oldest_unconfirmed_seconds", (), _age(settled, clock())),
            Sample("gateway_swept_total", (), sweep.settled_total),
            Sample("gateway_waiting", ("keeper",), int(loops.waiting_on is not None)),
            *process.samples("keeper"),
        ),
    )


def _age(unix_ms: int | None, now_s: float) -> float:
    return 0.0 if unix_ms is None else max(0.0, now_s - unix_ms / 1000)
