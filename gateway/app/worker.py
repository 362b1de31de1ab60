"""A worker: flushes the Redis stream into the ledger, and reports to Stripe. Any number may run, on any host."""

import asyncio
import os
import random
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Final, Protocol
from uuid import uuid4

import structlog

import pricing
import pricing.data
from gateway import build
from gateway.app import Place, process
from gateway.build_stripe import open_billing
from gateway.core.config import Settings, required
from gateway.core.errors import DependencyDown
from gateway.core.failpoints import Failpoint, pass_by
from gateway.core.metrics import Sample, Status
from gateway.edges.billing import Billing
from gateway.edges.buffer import Buffer
from gateway.edges.ledger import Ledger, Pool, open_pool
from gateway.edges.open_items import OpenItems
from gateway.edges.outbox import Outbox
from gateway.edges.retention import Retention
from gateway.edges.rooms import Rooms
from gateway.edges.sessions import Inbox, Listing, Walks
from gateway.edges.spending import Spending
from gateway.flows import retention
from gateway.flows.backfill import Backfill
from gateway.flows.bill import Bill
from gateway.flows.flush import Flush
from gateway.flows.meetings import Work
from gateway.flows.poll import Poll
from gateway.flows.recount import Recount
from gateway.flows.rooms.expire import Expiry
from gateway.processes import Ready

POLL_EVERY_S: Final = 60.0
MEET_EVERY_S: Final = 1.0
"""Seconds between two looks for events of meetings."""
LOOK_EVERY_S: Final = 5.0
"""Seconds between two looks at the stream and the outbox."""


async def run(settings: Settings, place: Place, stop: asyncio.Event, ready: Ready) -> None:
    """Flushes the stream into the ledger, and bills when Stripe is configured, until `stop`."""
    values = required(settings, "database_url", "redis_url")
    async with AsyncExitStack() as stack:
        buffer = build.open_buffer(stack, settings, values["redis_url"])
        pool = await open_pool(values["database_url"], connections_min=0, connections_max=6)
        stack.push_async_callback(pool.close)
        ledger = Ledger(pool, meter=settings.billing.meter_event_name, window_s=settings.billing.window_s)
        flush = build_flush(settings, buffer, ledger, place.failpoint)
        helper = build_flush(settings, buffer, ledger, place.failpoint)
        bill, waiters = None, list[Waits]()
        if settings.stripe_secret_key is not None:
            billing = await open_billing(stack, settings, settings.stripe_secret_key.get_secret_value())
            biller = build_bill(settings, pool, billing, place.failpoint)
            bill = asyncio.create_task(biller.run(build.now, asyncio.sleep, interval_s=settings.billing.interval_s))
            waiters.append(biller)
        work = [asyncio.create_task(flush.run(stop)), asyncio.create_task(helper.run(stop, helps=flush))]
        if bill is not None:
            work.append(bill)
        _poll(stack, settings, ledger, pool)
        recount = Recount(build.open_limits(stack, settings, values["redis_url"]), Spending(pool), now=build.now)
        recounting = asyncio.create_task(recount.run(interval_s=settings.limits.recount_s))
        stack.callback(recounting.cancel)
        _expire(stack, settings, pool)
        inbox = Inbox(pool)
        _meet(stack, settings, inbox, pool)
        await _reconcile(stack, settings, inbox, pool)
        _retain(stack, settings, pool)
        backlog = Backlog(buffer, ledger, Outbox(pool), inbox)
        looking = asyncio.create_task(backlog.watch(asyncio.sleep))
        stack.callback(looking.cancel)
        waiters += [flush, helper, recount, backlog]
        ready(partial(status, (flush, helper), waiters, backlog))
        # Neither ends before `stop` unless it is broken; then this process ends too, seen by all, and is restarted.
        await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
        for task in work:
            if not stop.is_set():
                task.cancel()
        if bill is not None:
            # Between a send and its mark an event is in doubt; its lease ends, and the identifier makes it harmless.
            bill.cancel()
        for result in await asyncio.gather(*work, return_exceptions=True):
            if isinstance(result, Exception):
                raise result


def _poll(stack: AsyncExitStack, settings: Settings, ledger: Ledger, pool: Pool) -> None:
    """Asks OpenAI about estimates where this worker has its key; one that has not only writes."""
    if settings.openai_api_key is None:
        return
    upstream = build.open_upstream(stack, settings, settings.openai_api_key.get_secret_value())
    settler = build.build_settler(settings, pricing.parse(pricing.data.read_texts()))
    poll = Poll(OpenItems(pool), ledger, upstream, settler, now=build.now)
    task = asyncio.create_task(poll.run(interval_s=POLL_EVERY_S))
    stack.callback(task.cancel)


def _meet(stack: AsyncExitStack, settings: Settings, inbox: Inbox, pool: Pool) -> None:
    is_used = settings.daily_api_key is not None or settings.daily_webhook_secret is not None
    work = Work(inbox, Listing(pool), new_id=lambda: str(uuid4()), is_used=is_used)
    task = asyncio.create_task(work.run(interval_s=MEET_EVERY_S))
    stack.callback(task.cancel)


async def _reconcile(stack: AsyncExitStack, settings: Settings, inbox: Inbox, pool: Pool) -> None:
    """Asks Daily.co what webhooks have not told, where this worker has its key."""
    if settings.daily_api_key is None or not settings.daily.reconcile_s:
        return
    backfill = Backfill(await build.open_daily(stack, settings), inbox, Walks(pool))
    task = asyncio.create_task(
        backfill.watch(interval_s=settings.daily.reconcile_s, hours=settings.daily.reconcile_hours, now=build.now)
    )
    stack.callback(task.cancel)


def _retain(stack: AsyncExitStack, settings: Settings, pool: Pool) -> None:
    limits = retention.limits_of(settings.retention)
    if limits:
        task = asyncio.create_task(retention.watch(Retention(pool), Walks(pool), limits, build.now))
        stack.callback(task.cancel)


def _expire(stack: AsyncExitStack, settings: Settings, pool: Pool) -> None:
    expiry = Expiry(Rooms(pool), now=build.now)
    task = asyncio.create_task(expiry.run(interval_s=settings.rooms.expire_interval_s))
    stack.callback(task.cancel)


def build_flush(settings: Settings, buffer: Buffer, ledger: Ledger, failpoint: Failpoint) -> Flush:
    """A batch writer under a name that nobody has ever had."""
    return Flush(
        buffer,
        ledger,
        consumer=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}",
        batch_rows_max=settings.flush.batch_rows_max,
        interval_s=settings.flush.interval_s,
        claim_idle_s=settings.flush.claim_idle_s,
        monotonic=time.monotonic,
        now=build.now,
        failpoint=failpoint,
    )


def build_bill(settings: Settings, pool: Pool, billing: Billing, failpoint: Failpoint = pass_by) -> Bill:
    """The reporter to Stripe."""
    return Bill(
        Outbox(pool),
        billing,
        grace_s=settings.billing.grace_s,
        monotonic=time.monotonic,
        random=random.random,
        log=structlog.get_logger("gateway.bill"),
        failpoint=failpoint,
    )


class Backlog:
    """What waits in Redis and PostgreSQL, looked at now and then: a scrape must cost neither of them anything."""

    def __init__(self, buffer: Buffer, ledger: Ledger, outbox: Outbox, inbox: Inbox) -> None:
        self._inbox: Final = inbox
        self._buffer: Final = buffer
        self._ledger: Final = ledger
        self._outbox: Final = outbox
        self._samples: tuple[Sample, ...] = ()
        self.waiting_on: str | None = None

    async def watch(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        """Looks every LOOK_EVERY_S seconds, until cancelled."""
        while True:
            try:
                self._samples = (*await self._look(),)
                self.waiting_on = None
            except DependencyDown as error:
                self.waiting_on = error.what
            await sleep(LOOK_EVERY_S)

    async def _look(self) -> list[Sample]:
        depth = await self._buffer.depth()
        outbox = await self._outbox.status()
        events = await self._inbox.counts()
        return [
            Sample("gateway_stream_entries", (), depth.entries),
            Sample("gateway_stream_unacknowledged", (), depth.unacknowledged),
            Sample("gateway_quarantine_rows", (), await self._ledger.quarantined()),
            *(Sample("gateway_meter_events", (state,), count) for state, count in outbox.counts.items()),
            Sample("gateway_webhook_events", ("new",), events.new),
            Sample("gateway_webhook_events", ("waiting",), events.waiting),
            Sample("gateway_webhook_events", ("failed",), events.failed),
            Sample("gateway_unreported_users", (), outbox.users_without_customer),
        ]

    def samples(self) -> Iterable[Sample]:
        """What the last look that succeeded has found."""
        return self._samples


class Waits(Protocol):
    """Work that may have to wait for Redis or PostgreSQL."""

    @property
    def waiting_on(self) -> str | None: ...


def status(writers: Sequence[Flush], waiters: Sequence[Waits], backlog: Backlog) -> Status:
    """A worker waits when any of its work does: a store that still answers questions may take no writes. Nothing is
    lost by that."""
    waiting = next((each.waiting_on for each in waiters if each.waiting_on is not None), None)
    return Status(
        None,
        waiting,
        (
            Sample("gateway_flushed_total", (), sum(each.entries_total for each in writers)),
            Sample("gateway_quarantined_total", (), sum(each.quarantined_total for each in writers)),
            Sample("gateway_waiting", ("worker",), int(waiting is not None)),
            *backlog.samples(),
            *process.samples("worker"),
        ),
    )
