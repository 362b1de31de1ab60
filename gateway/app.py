"""The composition root: runs each process of the gateway from settings, and takes it down in order.

Decides nothing: who may do what is said by the flows, what is true by the core. Three kinds of process share the
work: `proxy` (one per worker slot, answers clients), `keeper` (one per journal folder: ships, confirms, sweeps)
and `worker` (any number, on any host: flushes the Redis stream into Postgres, bills). Each says once a second how it
is (gateway/status.py).
"""

import asyncio
import os
import random
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

import aiohttp
import structlog
from aiohttp import web

import pricing
import pricing.data
from gateway import build, status
from gateway.core.config import Settings, required
from gateway.core.errors import DependencyDown
from gateway.edges.billing import Billing
from gateway.edges.keys import Keys
from gateway.edges.ledger import Ledger, open_pool
from gateway.edges.outbox import Outbox
from gateway.edges.segments import Segments
from gateway.edges.tokenizer import Tokenizer
from gateway.flows.flush import Flush
from gateway.flows.proxy.admission import Admission
from gateway.flows.proxy.estimate import Estimator
from gateway.flows.proxy.handler import Proxy
from gateway.flows.proxy.line import CallLog
from gateway.flows.proxy.metrics import CallMetrics
from gateway.flows.proxy.owners import Owners
from gateway.flows.proxy.parts import Parts
from gateway.flows.proxy.record import Recorder
from gateway.flows.proxy.relay import Drains
from gateway.flows.ship import Ship
from gateway.flows.sweep import Sweep
from gateway.processes import Ready

STDERR: Final = 2
KEEPER_STEP_S: Final = 0.1
RETIRE_EVERY_S: Final = 60.0
BACK_OFF_MAX_S: Final = 5.0
DRAIN_S: Final = 600.0
"""Seconds a stopping proxy lets its calls finish before it settles the rest as estimates."""
_log: Final = structlog.get_logger("gateway.app")


async def run_proxy(settings: Settings, slot: int, listener: socket.socket, stop: asyncio.Event, ready: Ready) -> None:
    """One proxy worker on `listener`, until `stop`; then its calls are let finish."""
    values = required(settings, "database_url", "redis_url", "openai_api_key", "unkey_root_key")
    async with AsyncExitStack() as stack:
        journal = build.open_journal(stack, settings, f"proxy-{slot}")
        buffer = build.open_buffer(stack, settings, values["redis_url"])
        ledger = await build.open_ledger(stack, settings, values["database_url"], connections=2)
        upstream = build.open_upstream(stack, settings, values["openai_api_key"])
        to_unkey = await stack.enter_async_context(aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()))
        settler = build.build_settler(settings, pricing.parse(pricing.data.read_texts()))
        log = CallLog(partial(os.write, STDERR), clock=time.time)
        stack.callback(log.flush)
        recorder = Recorder(journal, buffer)
        stack.push_async_callback(recorder.close)
        keys = Keys(to_unkey, settings.unkey_base_url, values["unkey_root_key"], timeout_s=settings.keys.timeout_s)
        drains, metrics = Drains(), CallMetrics()
        watch = asyncio.create_task(drains.watch())
        stack.callback(watch.cancel)
        proxy = Proxy(
            Parts(
                admission=Admission(
                    keys,
                    ledger,
                    settings.keys,
                    pepper=secrets.token_bytes(32),
                    monotonic=time.monotonic,
                    unix_s=time.time,
                ),
                owners=Owners(buffer, ledger, monotonic=time.monotonic),
                recorder=recorder,
                upstream=upstream,
                settler=settler,
                estimator=Estimator(Tokenizer(), settler),
                bounds=settings.upstream,
                log=log,
                metrics=metrics,
                traces=build.open_traces(stack, settings),
                clock=time.time,
                drains=drains,
                # An event id must be unique, not secret: seeded by the OS once, not asked for every call.
                random_bits=random.Random(secrets.token_bytes(32)).getrandbits,  # noqa: S311
            )
        )
        server = web.Server(proxy.handle, access_log=None, keepalive_timeout=75)
        runner = web.ServerRunner(server, shutdown_timeout=DRAIN_S)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.SockSite(runner, listener, backlog=1024).start()
        ready(partial(status.of_proxy, f"proxy-{slot}", metrics, recorder, journal, drains))
        await stop.wait()


async def run_keeper(settings: Settings, stop: asyncio.Event, ready: Ready) -> None:
    """Ships, confirms and sweeps this host's journal until `stop`, and once more after it."""
    values = required(settings, "database_url", "redis_url", "openai_api_key")
    async with AsyncExitStack() as stack:
        journal = build.open_journal(stack, settings, "keeper")
        buffer = build.open_buffer(stack, settings, values["redis_url"])
        ledger = await build.open_ledger(stack, settings, values["database_url"], connections=1)
        upstream = build.open_upstream(stack, settings, values["openai_api_key"])
        settler = build.build_settler(settings, pricing.parse(pricing.data.read_texts()))
        segments = Segments(settings.gateway_data_dir / "journal")
        ship = Ship(
            segments, buffer, ledger, confirm_after_s=settings.journal.confirm_after_s, monotonic=time.monotonic
        )
        sweep = Sweep(upstream, settler, journal, clock=time.time)
        waiting = status.Waiting()
        retire_at = time.monotonic() + RETIRE_EVERY_S

        async def step() -> None:
            nonlocal retire_at
            await ship.step_once()
            oldest = build.unix_ms() - int(settings.journal.open_max_s * 1000)
            await sweep.step_once(ship.orphans(older_than_unix_ms=oldest))
            if time.monotonic() >= retire_at:
                segments.retire(now_s=time.time(), keep_s=settings.journal.keep_s)
                retire_at = time.monotonic() + RETIRE_EVERY_S

        ready(partial(status.of_keeper, waiting, ship, sweep, segments, journal, time.time))
        await repeat(step, stop, every_s=KEEPER_STEP_S, name="keeper", waiting=waiting)


async def run_worker(settings: Settings, stop: asyncio.Event, ready: Ready) -> None:
    """Flushes the stream into the ledger, and bills when Stripe is configured, until `stop`."""
    values = required(settings, "database_url", "redis_url")
    async with AsyncExitStack() as stack:
        buffer = build.open_buffer(stack, settings, values["redis_url"])
        pool = await open_pool(values["database_url"], connections_min=0, connections_max=3)
        stack.push_async_callback(pool.close)
        ledger = Ledger(pool, meter=settings.billing.meter_event_name, window_s=settings.billing.window_s)
        flush = Flush(
            buffer,
            ledger,
            consumer=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}",
            batch_rows_max=settings.flush.batch_rows_max,
            interval_s=settings.flush.interval_s,
            claim_idle_s=settings.flush.claim_idle_s,
            monotonic=time.monotonic,
        )
        bill = None
        if settings.stripe_secret_key is not None:
            billing = Billing(settings.stripe_secret_key.get_secret_value(), base_url=settings.stripe_base_url)
            stack.push_async_callback(billing.close)
            bill = asyncio.create_task(
                build.build_bill(settings, pool, billing).run(
                    build.now, asyncio.sleep, interval_s=settings.billing.interval_s
                )
            )
        work = [asyncio.create_task(flush.run(stop))]
        if bill is not None:
            work.append(bill)
        backlog = status.Backlog(buffer, ledger, Outbox(pool))
        looking = asyncio.create_task(backlog.watch(asyncio.sleep))
        stack.callback(looking.cancel)
        ready(partial(status.of_worker, flush, backlog))
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


async def repeat(
    step: Callable[[], Awaitable[None]], stop: asyncio.Event, *, every_s: float, name: str, waiting: status.Waiting
) -> None:
    """`step` until `stop`, then once more; a dependency that is away is waited for with growing patience."""
    wait_s = every_s
    while True:
        last = stop.is_set()
        try:
            await step()
            wait_s, waiting.on = every_s, None
        except DependencyDown as error:
            wait_s, waiting.on = min(BACK_OFF_MAX_S, wait_s * 2), error.what
            _log.warning("waiting", process=name, what=error.what, detail=error.detail)
        if last:
            return
        try:
            await asyncio.wait_for(stop.wait(), wait_s)
        except TimeoutError:
            continue
