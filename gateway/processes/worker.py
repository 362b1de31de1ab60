"""A worker: flushes the Redis stream into the ledger, and reports to Stripe. Any number may run, on any host."""

import asyncio
import os
import random
import secrets
import socket
import time
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Final
from uuid import uuid4

import structlog

import pricing
import pricing.data
from gateway.billing.filing import FilingRules
from gateway.billing.mirror.balances import LOOK_EVERY_S as LOOK_FOR_BALANCES_S
from gateway.billing.mirror.balances import BalanceStore, CreditBalances
from gateway.billing.mirror.read import StripeReader
from gateway.billing.opening import open_billing
from gateway.billing.outbox import Outbox
from gateway.billing.reporter import UsageReporter
from gateway.billing.stripe import Billing
from gateway.billing.webhooks.inbox import StripeInbox
from gateway.billing.webhooks.opening import build_stripe_events
from gateway.close.seal import Seal
from gateway.config.settings import Settings, require_values
from gateway.hosts.lost import LostHosts
from gateway.hosts.open_calls import OpenCalls
from gateway.hosts.opening import open_calls_in_flight
from gateway.hosts.store import Hosts
from gateway.kit.clock import now
from gateway.kit.failpoints import Failpoint, pass_by
from gateway.kit.loops import Loops
from gateway.kit.metrics import Sample, Status
from gateway.ledger.flush import Flush
from gateway.ledger.open_items import OpenItems
from gateway.ledger.opening import build_ledger, open_buffer
from gateway.ledger.poll import Poll
from gateway.ledger.store import Ledger
from gateway.ledger.stream import Buffer
from gateway.limits.opening import open_limits
from gateway.limits.recount import Recount
from gateway.limits.spending import Spending
from gateway.meetings.backfill import Backfill
from gateway.meetings.backfill_cursors import BackfillCursors
from gateway.meetings.inbox import Inbox
from gateway.meetings.listing import MeetingListing
from gateway.meetings.opening import open_daily
from gateway.meetings.worker import MeetingsWorker
from gateway.openai.opening import open_upstream
from gateway.openai.upstream import Upstream
from gateway.processes import vitals as process
from gateway.processes.arguments import OnNewSecret, ProcessArguments
from gateway.processes.redis_memory import RedisFigures, open_walks
from gateway.processes.supervisor import Ready
from gateway.retention import retention
from gateway.retention.store import Retention
from gateway.rooms.expire import Expiry
from gateway.rooms.store import Rooms
from gateway.stores.opening import open_process_pool
from gateway.stores.postgres import Pool
from gateway.usage.opening import build_settler
from gateway.usage.plan_store import FollowPlans, PlanStore
from gateway.usage.plans import KnownPlans

CONNECTIONS_MAX: Final = 6
"""To PostgreSQL, for all loops together. No call waits for them: a slow statement of one delays the others' work."""
POLL_EVERY_S: Final = 60.0
MEET_EVERY_S: Final = 1.0
"""Seconds between two looks for events of meetings."""
RECOUNT_TURN_SHARE: Final = 0.85
"""Of the interval between two recounts: with its jitter, a worker alone must not miss a turn."""
UNITS_EVERY_S: Final = 60.0
"""Seconds between two looks for price lines that are to be added up: what comes together makes fewer sums."""
SEAL_EVERY_S: Final = 60.0
"""Seconds between two looks at whether a month is to be sealed."""
STRIPE_EVERY_S: Final = 1.0
"""Seconds between two looks for events of Stripe."""
LOOK_EVERY_S: Final = 5.0
"""Seconds between two looks at the stream and the outbox."""
ACCRUED_EVERY: Final = 12
"""Looks from one count of users who owe and have no customer to the next: it looks at each of them."""


async def run(settings: Settings, arguments: ProcessArguments, stop: asyncio.Event, ready: Ready) -> None:
    """Flushes the stream into the ledger, and bills when Stripe is configured, until `stop`."""
    values = require_values(settings, "database_url", "redis_url")
    async with AsyncExitStack() as stack:
        buffer = open_buffer(stack, settings, values["redis_url"])
        pool = await open_process_pool(stack, settings, "worker", CONNECTIONS_MAX)
        ledger = build_ledger(settings, pool)
        loops, inbox = Loops(uniform=random.uniform), Inbox(pool)
        flush = build_flush(settings, buffer, ledger, arguments.failpoint)
        helper = build_flush(settings, buffer, ledger, arguments.failpoint)
        for writer in (flush, helper):
            stack.push_async_callback(writer.leave)
        loops.paced("flush", flush.turn_pause_s, finishes=True)
        loops.paced("flush helper", partial(helper.turn_pause_s, helps=flush), finishes=True)
        loops.every("units", ledger.add_units, every_s=UNITS_EVERY_S)
        bill: UsageReporter | None = None
        if settings.stripe_secret_key is not None:
            # Cancelled at the end: between a send and its mark an event is in doubt; its lease ends, and the identifier
            # makes it harmless.
            billing = await open_billing(stack, settings, settings.stripe_secret_key.get_secret_value())
            arguments.on_new_secret("stripe_secret_key", billing.use_key)
            reporter, bill_s = build_bill(settings, pool, billing, arguments.failpoint), settings.billing.interval_s
            loops.paced("bill", lambda: reporter.turn_now_s(interval_s=bill_s))
            bill = reporter
            loops.every("stripe events", build_stripe_events(billing, pool).apply_due, every_s=STRIPE_EVERY_S)
            balances = build_balances(settings, pool, billing)
            loops.every("credit balances", balances.step_once, every_s=LOOK_FOR_BALANCES_S)
        turn_s = settings.limits.recount_s * RECOUNT_TURN_SHARE
        recount = Recount(open_limits(stack, settings), Spending(pool), now=now, turn_s=turn_s)
        loops.every("recount", recount.step_once, every_s=settings.limits.recount_s)
        upstream = _upstream(stack, settings, arguments.on_new_secret)
        _poll(loops, settings, ledger, pool, upstream)
        open_calls = open_calls_in_flight(stack, settings, values["redis_url"])
        lost = _lost_hosts(settings, open_calls, ledger, pool, upstream)
        loops.every("lost hosts", lost.step_once, every_s=settings.hosts.sweep_s)
        loops.every("expire", Expiry(Rooms(pool), now=now).step_once, every_s=settings.rooms.expire_interval_s)
        loops.every("seal", _seal(settings, pool).step_once, every_s=SEAL_EVERY_S)
        loops.every("meetings", _meetings(settings, inbox, pool).apply_due, every_s=MEET_EVERY_S)
        await _reconcile(loops, stack, settings, inbox, pool, arguments.on_new_secret)
        _retain(loops, settings, pool)
        backlog = Backlog(buffer, ledger, Outbox(pool), inbox, StripeInbox(pool), Hosts(pool))
        loops.every("backlog", backlog.look, every_s=LOOK_EVERY_S)
        memory = RedisFigures(open_walks(stack, settings, _unique_name()))
        loops.every("redis memory", memory.look, every_s=LOOK_EVERY_S)
        async with loops:
            ready(partial(status, (flush, helper), loops, backlog, memory, bill))
            await loops.run_until(stop)


def _upstream(stack: AsyncExitStack, settings: Settings, on_new_secret: OnNewSecret) -> Upstream | None:
    """OpenAI, where this worker has its key; one that has not asks nothing."""
    if settings.openai_api_key is None:
        return None
    upstream = open_upstream(stack, settings, settings.openai_api_key.get_secret_value())
    on_new_secret("openai_api_key", upstream.use_key)
    return upstream


def _lost_hosts(
    settings: Settings, calls: OpenCalls, ledger: Ledger, pool: Pool, upstream: Upstream | None
) -> LostHosts:
    plans = FollowPlans(pool, monotonic=time.monotonic)
    settler = build_settler(settings, pricing.parse(pricing.data.read_texts()), plans.known)
    return LostHosts(calls, Hosts(pool), ledger, plans, upstream, settler, sweeper=_unique_name(), now=now)


def _poll(loops: Loops, settings: Settings, ledger: Ledger, pool: Pool, upstream: Upstream | None) -> None:
    """Asks OpenAI about estimates."""
    if upstream is None:
        return
    settler = build_settler(settings, pricing.parse(pricing.data.read_texts()), KnownPlans())
    poll = Poll(OpenItems(pool), ledger, upstream, settler, PlanStore(pool), now=now)
    loops.every("poll", poll.step_once, every_s=POLL_EVERY_S)


def _seal(settings: Settings, pool: Pool) -> Seal:
    grace_h = settings.billing.invoice_grace_h
    return Seal(pool, invoice_grace_h=grace_h, price_texts=pricing.data.read_texts())


def _meetings(settings: Settings, inbox: Inbox, pool: Pool) -> MeetingsWorker:
    # A worker has no webhook secret; its first event shows that there are webhooks.
    is_used = settings.daily_api_key is not None
    return MeetingsWorker(inbox, MeetingListing(pool), new_id=lambda: str(uuid4()), is_used=is_used)


async def _reconcile(
    loops: Loops,
    stack: AsyncExitStack,
    settings: Settings,
    inbox: Inbox,
    pool: Pool,
    on_new_secret: OnNewSecret,
) -> None:
    """Asks Daily.co what webhooks have not told, where this worker has its key."""
    every_s, hours = settings.daily.reconcile_s, settings.daily.reconcile_hours
    if settings.daily_api_key is None or not every_s:
        return
    daily = await open_daily(stack, settings)
    on_new_secret("daily_api_key", daily.use_key)
    backfill = Backfill(daily, inbox, BackfillCursors(pool))
    # The turn is a little shorter than the interval, or a worker alone would miss every other one. One that failed was
    # this worker's all the same: sooner than at its end there is nothing to try.
    loops.every(
        "reconcile",
        lambda: backfill.reconcile(now(), hours=hours, lease_s=every_s * 0.9),
        every_s=every_s,
        retry_s=every_s,
    )


def _retain(loops: Loops, settings: Settings, pool: Pool) -> None:
    limits = retention.limits_of(settings.retention)
    if limits:
        store, cursors = Retention(pool), BackfillCursors(pool)
        loops.every(
            "retention",
            lambda: retention.take_daily(store, cursors, limits, now()),
            every_s=retention.LOOK_S,
        )


def build_flush(settings: Settings, buffer: Buffer, ledger: Ledger, failpoint: Failpoint) -> Flush:
    """A batch writer under a name that nobody has ever had."""
    return Flush(
        buffer,
        ledger,
        consumer=_unique_name(),
        batch_rows_max=settings.flush.batch_rows_max,
        interval_s=settings.flush.interval_s,
        claim_idle_s=settings.flush.claim_idle_s,
        monotonic=time.monotonic,
        now=now,
        failpoint=failpoint,
    )


def _unique_name() -> str:
    """One that nobody has ever had."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


def build_bill(settings: Settings, pool: Pool, billing: Billing, failpoint: Failpoint = pass_by) -> UsageReporter:
    """The reporter to Stripe."""
    return UsageReporter(
        Outbox(pool, FilingRules(settings.billing.invoice_grace_h, settings.billing.late == "hold")),
        billing,
        grace_s=settings.billing.grace_s,
        monotonic=time.monotonic,
        random=random.random,
        log=structlog.get_logger("gateway.bill"),
        failpoint=failpoint,
    )


def build_balances(settings: Settings, pool: Pool, billing: Billing) -> CreditBalances:
    """The reader of credit at Stripe."""
    meter, every_s = settings.billing.meter_event_name, settings.billing.balance_s
    return CreditBalances(StripeReader(billing), BalanceStore(pool), meter=meter, every_s=every_s)


class Backlog:
    """What waits in Redis and PostgreSQL, looked at now and then: a scrape must cost neither of them anything."""

    def __init__(
        self, buffer: Buffer, ledger: Ledger, outbox: Outbox, inbox: Inbox, stripes: StripeInbox, hosts: Hosts
    ) -> None:
        self._inbox: Final = inbox
        self._stripes: Final = stripes
        self._hosts: Final = hosts
        self._buffer: Final = buffer
        self._ledger: Final = ledger
        self._outbox: Final = outbox
        self._samples: tuple[Sample, ...] = ()
        self._looks = 0
        self._unreported_users = 0

    async def look(self) -> None:
        """Looks now. Raises DependencyDown; then the last figures stay."""
        self._samples = (*await self._look(),)

    async def _look(self) -> list[Sample]:
        depth = await self._buffer.depth()
        outbox = await self._outbox.status()
        events, stripes = await self._inbox.counts(), await self._stripes.counts()
        if self._looks % ACCRUED_EVERY == 0:
            self._unreported_users = await self._outbox.unpaid_users()
        self._looks += 1
        return [
            Sample("gateway_stream_entries", (), depth.entries),
            Sample("gateway_stream_unacknowledged", (), depth.unacknowledged),
            *(Sample("gateway_hosts", (state,), count) for state, count in (await self._hosts.counts()).items()),
            Sample("gateway_quarantine_rows", (), await self._ledger.count_quarantined()),
            *(Sample("gateway_meter_events", (state,), count) for state, count in outbox.counts.items()),
            Sample("gateway_webhook_events", ("new",), events.new),
            Sample("gateway_webhook_events", ("waiting",), events.waiting),
            Sample("gateway_webhook_events", ("failed",), events.failed),
            Sample("gateway_webhook_events", ("lapsed",), events.lapsed),
            Sample("gateway_stripe_events", ("new",), stripes.new),
            Sample("gateway_stripe_events", ("failed",), stripes.failed),
            Sample("gateway_unreported_users", (), self._unreported_users),
        ]

    def samples(self) -> Iterable[Sample]:
        """What the last look that succeeded has found."""
        return self._samples


def status(
    writers: Sequence[Flush],
    loops: Loops,
    backlog: Backlog,
    memory: RedisFigures,
    bill: UsageReporter | None = None,
) -> Status:
    """A worker waits when any of its loops does: a store that still answers questions may take no writes. Nothing is
    lost by that. A Redis that is full is told of although what a worker does needs no room there."""
    return Status(
        loops.failure,
        loops.waiting_on or memory.full,
        (
            Sample("gateway_flushed_total", (), sum(each.entries_total for each in writers)),
            Sample("gateway_quarantined_total", (), sum(each.quarantined_total for each in writers)),
            Sample("gateway_waiting", ("worker",), int(loops.waiting_on is not None)),
            Sample("gateway_meter_events_of_other_accounts", (), 0 if bill is None else bill.others_waiting),
            Sample("gateway_billing_stopped", (), int(bill is not None and bill.stopped is not None)),
            *backlog.samples(),
            *memory.samples(),
            *process.samples("worker"),
        ),
    )
