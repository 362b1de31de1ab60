"""A proxy: answers clients on a port that it shares with its siblings, until it is told to stop."""

import asyncio
import os
import random
import secrets
import socket
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

import structlog
from aiohttp import web

import pricing
import pricing.data
from gateway.access.admission import Admission
from gateway.access.breaker import Breaker
from gateway.access.follow import EVERY_S, FollowChanges, name_of
from gateway.access.good_keys import EXCHANGE_S, GoodKeys
from gateway.access.identities import KeyOwners
from gateway.access.verification import KeyVerifier
from gateway.accounts.opening import open_key_changes
from gateway.config.settings import Settings, require_values
from gateway.http.connections import LOOK_S, ClientConnections
from gateway.http.cors import Cors
from gateway.http.listener import Listener
from gateway.http.outbound import vendor_session
from gateway.http.uploads import Uploads
from gateway.journal.opening import open_journal
from gateway.journal.writer import Journal
from gateway.keys.verify import Keys
from gateway.kit.errors import DependencyDown
from gateway.kit.loops import Loops
from gateway.kit.metrics import Sample, Status
from gateway.ledger.opening import open_buffer
from gateway.ledger.stream import Buffer
from gateway.limits.limiter import RENEW_S, Limiter
from gateway.limits.local_limits import LocalLimits
from gateway.limits.opening import open_limits
from gateway.limits.spending import Spending
from gateway.meetings.attribution import MeetingAttribution
from gateway.meetings.call_meetings import CallMeetings
from gateway.openai.objects import UpstreamObjects
from gateway.openai.opening import build_namespaces, open_upstream
from gateway.openai.tokenizer import Tokenizer
from gateway.openai.upstream import Upstream
from gateway.processes import vitals as process
from gateway.processes.arguments import OnNewSecret, ProcessArguments
from gateway.processes.file_limit import raise_file_limit
from gateway.processes.front import Front
from gateway.processes.good_keys import open_good_keys
from gateway.processes.proxy_connections import ProxyConnections, open_connections
from gateway.processes.rooms_api import open_rooms
from gateway.processes.server import open_server
from gateway.processes.supervisor import Ready, listen
from gateway.processes.webhooks import open_webhooks
from gateway.proxy.access_log import AccessLog
from gateway.proxy.active_relays import WATCH_S, ActiveRelays
from gateway.proxy.dependencies import Dependencies
from gateway.proxy.estimate import Estimator
from gateway.proxy.handler import Proxy
from gateway.proxy.metrics import CallMetrics
from gateway.proxy.opening import open_traces
from gateway.proxy.owners import Owners
from gateway.proxy.recheck import Recheck
from gateway.proxy.record import Recorder
from gateway.stores.postgres_share import Share
from gateway.usage.opening import build_settler
from gateway.usage.plan_store import EVERY_S as PLANS_EVERY_S
from gateway.usage.plan_store import FollowPlans
from gateway.usage.settle import Settler

STDERR: Final = 2
_log: Final = structlog.get_logger("gateway.proxy")
DRAIN_S: Final = 600.0
"""Seconds a stopping proxy lets its calls finish before it settles the rest as estimates."""
LEAVE_LOOK_S: Final = 0.1
FAILED_DRAIN_S: Final = 10.0
"""The same, of a proxy that ends because a background loop has failed."""
SETTLE_S: Final = 10.0
"""Seconds for settling them; whatever hangs after that is left to the keeper."""


async def run(settings: Settings, arguments: ProcessArguments, stop: asyncio.Event, ready: Ready) -> None:
    """Until `stop`; then its running calls may finish."""
    name = f"proxy-{arguments.slot}"
    bound = arguments.listeners or (listen(arguments.host, arguments.port),)
    values = require_values(settings, "database_url", "redis_url")
    async with AsyncExitStack() as stack:
        journal = open_journal(stack, settings, name)
        buffer = open_buffer(stack, settings, values["redis_url"])
        connections = await open_connections(stack, settings, name)
        upstream = _open_upstream(stack, settings, arguments)
        plans = await _open_plans(connections)
        settler = build_settler(settings, pricing.parse(pricing.data.read_texts()), plans.known)
        log = _open_log(stack, name)
        recorder = _open_recorder(stack, journal, buffer)
        verifier = await _open_verifier(stack, settings, arguments.on_new_secret)
        limiter = _open_limiter(stack, settings, settler, connections.budgets)
        good_keys = await open_good_keys(stack, settings, values["redis_url"])
        admission = _open_admission(settings, verifier, connections, plans, good_keys)
        active_relays, metrics = ActiveRelays(), CallMetrics()
        clients = _guard_clients(settings, active_relays)
        recheck = Recheck(admission, active_relays)
        follow = await _open_follow(stack, settings, admission, name, recheck)
        loops = _loops(settings, limiter, active_relays, recheck, follow, plans, good_keys)
        loops.every("connections", partial(_look_at_connections, clients, upstream), every_s=LOOK_S)
        await stack.enter_async_context(loops)  # before anybody is listened to, until the last call has ended
        cors = Cors(settings.cors.origins) if settings.cors.origins else None
        proxy = Proxy(
            Dependencies(
                admission=admission,
                owners=Owners(buffer, UpstreamObjects(connections.look_ups)),
                meetings=MeetingAttribution(CallMeetings(connections.look_ups), monotonic=time.monotonic),
                limiter=limiter,
                recorder=recorder,
                upstream=upstream,
                settler=settler,
                estimator=Estimator(Tokenizer(), settler),
                bounds=settings.upstream,
                log=log,
                metrics=metrics,
                traces=open_traces(stack, settings),
                clock=time.time,
                active_relays=active_relays,
                clients=clients,
                namespaces=build_namespaces(settings),
                plans=plans,
                cors=cors,
                forward_traces=settings.traces.forward_agents,
                failpoint=arguments.failpoint,
                # An event id must be unique, not secret: seeded by the OS once, not asked for every call.
                random_bits=random.Random(secrets.token_bytes(32)).getrandbits,  # noqa: S311
            )
        )
        hear = arguments.on_new_secret
        server = _open_server(settings, connections, proxy, admission, limiter.local, clients, cors, hear)
        listener = await _listen(stack, server, clients, bound, loops, active_relays)
        parts = (metrics, recorder, journal, active_relays, limiter, verifier, plans, loops, clients)
        ready(partial(status, name, *parts))
        await _run_until(stop, loops, active_relays)
        await _give_notice(settings, arguments, clients, active_relays, listener)


async def _run_until(stop: asyncio.Event, loops: Loops, active_relays: ActiveRelays) -> None:
    try:
        await loops.run_until(stop)
    finally:
        active_relays.closing = True


async def _listen(
    stack: AsyncExitStack,
    server: web.Server,
    clients: ClientConnections,
    bound: Sequence[socket.socket],
    loops: Loops,
    active_relays: ActiveRelays,
) -> Listener:
    """Requests are taken from here on, until the stack closes; then running calls finish."""
    runner, listener = web.ServerRunner(server), Listener(server, clients)
    await runner.setup()

    async def close() -> None:
        # Another process is to take over soon from one that has failed, and nobody holds its calls' time-outs any more.
        drain_s = DRAIN_S if loops.failed is None else FAILED_DRAIN_S
        listener.close()
        await asyncio.sleep(0)  # what has come in before is begun
        server.pre_shutdown()
        giving_up = asyncio.get_running_loop().call_later(drain_s, active_relays.give_up)
        await server.shutdown(drain_s + SETTLE_S)
        giving_up.cancel()
        await runner.cleanup()

    stack.push_async_callback(close)
    listener.start(bound)
    return listener


async def _give_notice(
    settings: Settings,
    arguments: ProcessArguments,
    clients: ClientConnections,
    active_relays: ActiveRelays,
    listener: Listener,
) -> None:
    """Requests are still answered: until balancers have seen that it stops, or, where another gateway has taken over,
    until each open connection has been used once more, which ends it, or has been idle for as long as it may."""
    if not arguments.leaving():
        await asyncio.sleep(settings.gateway_stop_notice_s)
        return
    active_relays.is_replaced = True
    listener.close()
    until = time.monotonic() + settings.gateway_keepalive_s
    while clients.count and arguments.leaving() and time.monotonic() < until:  # noqa: ASYNC110 - nobody tells of it
        await asyncio.sleep(LEAVE_LOOK_S)


async def _open_verifier(stack: AsyncExitStack, settings: Settings, on_new_secret: OnNewSecret) -> KeyVerifier:
    """The way to Unkey, with the canary asked about: what it says, every refused customer would say later."""
    root_key = require_values(settings, "unkey_root_key")["unkey_root_key"]
    session = await stack.enter_async_context(vendor_session(settings, settings.unkey_base_url))
    keys = Keys(session, settings.unkey_base_url, root_key, timeout_s=settings.keys.timeout_s)
    on_new_secret("unkey_root_key", keys.use_root_key)
    breaker = Breaker(monotonic=time.monotonic, uniform=random.uniform)
    canary = None if settings.keys.canary is None else settings.keys.canary.get_secret_value()
    verifier = KeyVerifier(keys, breaker, canary, monotonic=time.monotonic)
    try:
        await verifier.check()
    except DependencyDown as error:  # no reason not to start: it may be back before the first call
        _log.warning("canary key not checked", what=error.what, detail=error.detail)
    return verifier


def _open_upstream(stack: AsyncExitStack, settings: Settings, arguments: ProcessArguments) -> Upstream:
    """The way to OpenAI."""
    key = require_values(settings, "openai_api_key")["openai_api_key"]
    upstream = open_upstream(stack, settings, key, failpoint=arguments.failpoint)
    arguments.on_new_secret("openai_api_key", upstream.use_key)
    return upstream


def _open_log(stack: AsyncExitStack, name: str) -> AccessLog:
    log = AccessLog(partial(os.write, STDERR), name, clock=time.time)
    stack.callback(log.flush)
    return log


def _open_recorder(stack: AsyncExitStack, journal: Journal, buffer: Buffer) -> Recorder:
    recorder = Recorder(journal, buffer)
    stack.push_async_callback(recorder.close)
    return recorder


async def _open_plans(connections: ProxyConnections) -> FollowPlans:
    """Plans as they are now. PostgreSQL may be away: then the first key that is looked up there waits for them too."""
    plans = FollowPlans(connections.plans, monotonic=time.monotonic)
    try:
        await plans.step_once()
    except DependencyDown as error:
        _log.warning("plans are not known yet", what=error.what, detail=error.detail)
    return plans


def _open_admission(
    settings: Settings,
    verifier: KeyVerifier,
    connections: ProxyConnections,
    plans: FollowPlans,
    good_keys: GoodKeys | None,
) -> Admission:
    return Admission(
        verifier,
        KeyOwners(connections.look_ups, look_first=plans.look_first),
        settings.keys,
        settings.limits,
        pepper=secrets.token_bytes(32),
        monotonic=time.monotonic,
        unix_s=time.time,
        draw=random.randrange,
        good_keys=good_keys,
    )


def _guard_clients(settings: Settings, active_relays: ActiveRelays) -> ClientConnections:
    """What clients may hold of this process."""
    return ClientConnections(
        settings.connections,
        Uploads(settings.connections),
        files=raise_file_limit(),
        write_stall_s=settings.upstream.write_stall_s,
        drains=lambda: active_relays.running,
    )


def _open_server(
    settings: Settings,
    connections: ProxyConnections,
    proxy: Proxy,
    admission: Admission,
    local: LocalLimits,
    clients: ClientConnections,
    cors: Cors | None,
    on_new_secret: OnNewSecret,
) -> web.Server:
    """The public port: the proxy, and what is beside it."""
    rooms = open_rooms(settings, connections.rooms, admission, local, clients)
    webhooks = open_webhooks(settings, connections.webhooks, clients.uploads.read, on_new_secret)
    front = Front(proxy, {"/rooms": rooms, "/webhooks": webhooks})
    return open_server(front, clients, cors, keepalive_s=settings.gateway_keepalive_s)


async def _open_follow(
    stack: AsyncExitStack, settings: Settings, admission: Admission, name: str, recheck: Recheck
) -> FollowChanges:
    """What tells this proxy of keys that were revoked, from before its first call."""
    changes = open_key_changes(stack, require_values(settings, "redis_url")["redis_url"])
    unique = name_of(name, settings.gateway_data_dir / "journal")
    follow = FollowChanges(changes, admission, unique, recheck.wake)
    try:
        await follow.open()
    except DependencyDown as error:  # no reason not to start: its loop goes on trying
        _log.warning("changes of keys are not followed yet", what=error.what, detail=error.detail)
    stack.push_async_callback(follow.close)
    return follow


def _loops(
    settings: Settings,
    limiter: Limiter,
    active_relays: ActiveRelays,
    recheck: Recheck,
    follow: FollowChanges,
    plans: FollowPlans,
    good_keys: GoodKeys | None,
) -> Loops:
    loops = Loops(uniform=random.uniform)
    loops.every("slots", limiter.renew, every_s=RENEW_S)
    loops.every("bounds", active_relays.check, every_s=WATCH_S)
    if good_keys is not None:
        loops.every("good keys", good_keys.exchange, every_s=EXCHANGE_S)
    loops.every("plans", plans.step_once, every_s=PLANS_EVERY_S)
    loops.every("key changes", follow.step_once, every_s=EVERY_S)
    if settings.keys.recheck_s:
        loops.paced("recheck", partial(recheck.turn, settings.keys.recheck_s))
    return loops


async def _look_at_connections(clients: ClientConnections, upstream: Upstream) -> None:
    await clients.check()
    upstream.close_old()


def _open_limiter(stack: AsyncExitStack, settings: Settings, settler: Settler, connections: Share) -> Limiter:
    limits = open_limits(stack, settings)
    limiter = Limiter(limits, Spending(connections), settler, settings.limits)
    stack.push_async_callback(limiter.close)
    return limiter


def status(
    name: str,
    metrics: CallMetrics,
    recorder: Recorder,
    journal: Journal,
    active_relays: ActiveRelays,
    limiter: Limiter,
    verifier: KeyVerifier,
    plans: FollowPlans,
    loops: Loops,
    clients: ClientConnections,
) -> Status:
    """A proxy fails when calls cannot be recorded, when a loop has failed, or while it cannot let any key in yet. Calls
    go on while its loops wait."""
    own = (
        Sample("gateway_waiting", (name,), int(loops.waiting_on is not None)),
        Sample("gateway_drains_running", (), active_relays.running),
        Sample("gateway_settles_not_on_disk", (), recorder.stranded),
        Sample("gateway_unkey_circuit_open", (), int(verifier.circuit_is_open)),
        Sample("gateway_unkey_canary_unknown", (), int(verifier.is_doubted)),
        Sample("gateway_plans_age_seconds", (), plans.age_s),
        journal.commits.sample("gateway_journal_commit_seconds"),
        *(
            Sample("gateway_budget_warnings_total", (str(share),), count)
            for share, count in limiter.ratelimit_headers.counted.items()
        ),
    )
    return Status(
        recorder.failure or loops.failure or plans.failure or clients.failure,
        loops.waiting_on,
        (*metrics.samples(), *clients.samples(), *own, *process.samples(name)),
    )
