"""Builds the parts of a process from settings; what has to be closed again is closed by the caller's stack."""

import asyncio
import random
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from importlib import import_module
from typing import Final
from uuid import uuid4

import aiohttp

import pricing
from gateway.core.config import Settings, required
from gateway.core.egress import DIRECT
from gateway.core.errors import ConfigError
from gateway.core.failpoints import Failpoint, pass_by
from gateway.core.regions import region_of
from gateway.core.settle import Settler
from gateway.edges.buffer import Buffer
from gateway.edges.journal import Journal
from gateway.edges.ledger import Ledger, open_pool
from gateway.edges.limits import Limits
from gateway.edges.meetings import Meetings
from gateway.edges.redis_client import open_redis
from gateway.edges.upstream import Upstream
from gateway.edges.upstream.dial import open_socket
from gateway.flows.proxy.tracing import Traces

LIMITS_TIMEOUT_S: Final = 1.0
"""Seconds that Redis has for the limits of a call."""
HOLD_MARGIN_S: Final = 600.0
"""Seconds that a swept call has to reach the ledger before its hold ends by itself."""


def unix_ms() -> int:
    """Now, milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def now() -> datetime:
    """Now, UTC."""
    return datetime.now(UTC)


def build_settler(settings: Settings, book: pricing.Book) -> Settler:
    """How calls are valued under these settings."""
    return Settler(
        book,
        markup=settings.billing.markup,
        bill_estimates=settings.billing.bill_estimates,
        region=region_of(settings.openai_base_url),
    )


async def open_ledger(stack: AsyncExitStack, settings: Settings, dsn: str, *, connections: int) -> Ledger:
    """A ledger over a pool that the stack closes; a database that is away is met at the first question, not here."""
    pool = await open_pool(dsn, connections_min=0, connections_max=connections)
    stack.push_async_callback(pool.close)
    return Ledger(pool, meter=settings.billing.meter_event_name, window_s=settings.billing.window_s)


def open_journal(stack: AsyncExitStack, settings: Settings, slot: str) -> Journal:
    """The journal of `slot`, closed by the stack. Raises SlotTaken or DependencyDown."""
    journal = Journal(
        settings.gateway_data_dir / "journal",
        slot,
        str(uuid4()),
        segment_bytes_max=settings.journal.segment_bytes_max,
        reserve_bytes=settings.journal.reserve_bytes,
        unix_ms=unix_ms,
    )
    journal.open()
    stack.callback(journal.close)
    return journal


def open_buffer(stack: AsyncExitStack, settings: Settings, url: str) -> Buffer:
    """The Redis side, closed by the stack."""
    redis = open_redis(url)
    stack.push_async_callback(redis.aclose)
    return Buffer(redis, stream=settings.flush.stream)


def open_limits(stack: AsyncExitStack, settings: Settings, url: str) -> Limits:
    """Limits in Redis, closed by the stack. Their own connections: a call must not queue behind a long read."""
    redis = open_redis(url, timeout_s=LIMITS_TIMEOUT_S, connections_max=4)
    stack.push_async_callback(redis.aclose)
    # A sweep settles a call after this at the latest; then the ledger has it, and the hold may go.
    return Limits(redis, hold_s=settings.journal.open_max_s + HOLD_MARGIN_S)


def open_upstream(
    stack: AsyncExitStack, settings: Settings, api_key: str, *, failpoint: Failpoint = pass_by
) -> Upstream:
    """Connections to OpenAI, closed by the stack."""
    bounds = settings.upstream
    upstream = Upstream(
        settings.openai_base_url,
        api_key,
        connect_s=bounds.connect_s,
        first_byte_s=bounds.read_s,
        proxy=proxy_for(settings, settings.openai_base_url),
        failpoint=failpoint,
    )
    stack.push_async_callback(upstream.close)
    return upstream


def proxy_for(settings: Settings, url: str) -> str | None:
    """The proxy through which `url` is reached; a secret. Plain http stays in one's own network, and goes straight."""
    given = settings.egress.proxy
    if given is None or given.get_secret_value() == DIRECT or not url.startswith("https://"):
        return None
    return given.get_secret_value()


def vendor_session(settings: Settings, url: str) -> aiohttp.ClientSession:
    """A session for the vendor at `url`; the caller closes it."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(socket_factory=open_socket),
        cookie_jar=aiohttp.DummyCookieJar(),
        proxy=proxy_for(settings, url),
    )


async def open_daily(stack: AsyncExitStack, settings: Settings) -> Meetings:
    """Daily.co's REST API, closed by the stack. Raises ConfigError without its key."""
    key = required(settings, "daily_api_key")["daily_api_key"]
    session = await stack.enter_async_context(vendor_session(settings, settings.daily_base_url))
    # No secret: two workers should not come back at the same moment.
    return Meetings(session, settings.daily_base_url, key, sleep=asyncio.sleep, uniform=random.uniform)


def open_traces(stack: AsyncExitStack, settings: Settings) -> Traces | None:
    """Where spans go, closed by the stack; None where nobody wants them. Raises ConfigError without the extra."""
    endpoint = settings.traces.otlp_endpoint
    if endpoint is None:
        return None
    try:
        # Here and by name: an extra that is not installed, and costs half a second where it is.
        edge = import_module("gateway.edges.traces")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"traces.otlp_endpoint is set, but {error.name} is not installed: pip install 'pailflow-gateway[otel]'"
        ) from None
    traces = edge.open_traces(endpoint, settings.traces.sample_ratio)
    stack.callback(traces.close)
    opened: Traces = traces
    return opened
