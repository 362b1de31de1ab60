"""`gateway doctor`: asks every dependency, and says what is wrong and how to mend it. Changes nothing.

A finding is `fail` when a call could not be metered, `warn` when something else deserves a look.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import date
from typing import Final, Literal, NamedTuple

import aiohttp
from rich.console import Console
from rich.table import Table

import pricing
import pricing.data
from gateway.core.config import Settings, required
from gateway.core.errors import ConfigError, DependencyDown
from gateway.edges import migrator
from gateway.edges.billing import Billing
from gateway.edges.buffer import Buffer, open_redis
from gateway.edges.keys import Keys
from gateway.edges.ledger import open_pool
from gateway.edges.outbox import Outbox
from gateway.edges.upstream import Upstream

PRICES_AGE_MAX_DAYS: Final = 30
SLOW_FSYNC_MS: Final = 20.0

Level = Literal["ok", "warn", "fail"]


class Finding(NamedTuple):
    """What one check found; `mend` is empty when there is nothing to do."""

    what: str
    level: Level
    says: str
    mend: str = ""


async def doctor(settings: Settings, console: Console, *, today: date) -> int:
    """Prints every finding; the exit status: 1 when a call could not be metered."""
    async with AsyncExitStack() as stack:
        checks: tuple[tuple[str, Callable[[Settings, AsyncExitStack], Awaitable[list[Finding]]]], ...] = (
            ("postgres", _postgres),
            ("redis", _redis),
            ("journal", _journal),
            ("unkey", _unkey),
            ("openai", _openai),
            ("stripe", _stripe),
        )
        findings = [finding for what, check in checks for finding in await _run(what, check, settings, stack)]
    findings += _prices(pricing.parse(pricing.data.read_texts()), today)
    table = Table(title="gateway doctor", title_justify="left", show_lines=False)
    for name in ("what", "", "finding", "how to mend it"):
        table.add_column(name, overflow="fold")
    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    for finding in findings:
        table.add_row(finding.what, f"[{colours[finding.level]}]{finding.level}[/]", finding.says, finding.mend)
    console.print(table)
    return 1 if any(finding.level == "fail" for finding in findings) else 0


async def _run(
    what: str,
    check: Callable[[Settings, AsyncExitStack], Awaitable[list[Finding]]],
    settings: Settings,
    stack: AsyncExitStack,
) -> list[Finding]:
    try:
        return await check(settings, stack)
    except ConfigError as error:
        return [Finding(what, "fail", str(error), "set it")]
    except DependencyDown as error:
        return [Finding(what, "fail", error.detail, "start it, or correct its address or credential")]


async def _postgres(settings: Settings, stack: AsyncExitStack) -> list[Finding]:
    dsn = required(settings, "database_url")["database_url"]
    pool = await open_pool(dsn, connections_max=1)
    stack.push_async_callback(pool.close)
    async with pool.acquire() as connection:
        version = await connection.fetchval("select current_setting('server_version')")
        waiting = await migrator.pending(connection)
    if waiting:
        names = ", ".join(each.name for each in waiting)
        return [Finding("postgres", "fail", f"{len(waiting)} migration(s) not applied: {names}", "gateway migrate")]
    return [Finding("postgres", "ok", f"version {version}, all migrations applied")]


async def _redis(settings: Settings, stack: AsyncExitStack) -> list[Finding]:
    redis = open_redis(required(settings, "redis_url")["redis_url"])
    stack.push_async_callback(redis.aclose)
    buffer = Buffer(redis, stream=settings.flush.stream)
    await buffer.check_policy()
    depth = await buffer.depth()
    return [Finding("redis", "ok", f"noeviction; {depth.entries} event(s) waiting in the stream")]


async def _journal(settings: Settings, stack: AsyncExitStack) -> list[Finding]:
    folder = settings.gateway_data_dir / "journal"

    def probe() -> float:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / f".doctor-{os.getpid()}"
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.write(fd, b"\n")
                begun = time.perf_counter()
                os.fdatasync(fd)
                return (time.perf_counter() - begun) * 1000
            finally:
                os.close(fd)
        finally:
            path.unlink(missing_ok=True)

    try:
        took_ms = await asyncio.to_thread(probe)
    except OSError as error:
        return [Finding("journal", "fail", f"{folder}: {error.strerror}", "make GATEWAY_DATA_DIR writable")]
    level: Level = "warn" if took_ms > SLOW_FSYNC_MS else "ok"
    mend = "a faster disk: each call waits for it twice" if level == "warn" else ""
    return [Finding("journal", level, f"{folder} is writable; fdatasync took {took_ms:.1f} ms", mend)]


async def _unkey(settings: Settings, stack: AsyncExitStack) -> list[Finding]:
    root_key = required(settings, "unkey_root_key")["unkey_root_key"]
    session = await stack.enter_async_context(aiohttp.ClientSession())
    keys = Keys(session, settings.unkey_base_url, root_key, timeout_s=5)
    # A key that cannot exist: an answer at all means that Unkey is there and takes our root key.
    verdict = await keys.verify("doctor-no-such-key")
    if verdict.valid:
        return [Finding("unkey", "fail", "a key that does not exist is VALID", "check UNKEY_BASE_URL")]
    return [Finding("unkey", "ok", "it answers")]


async def _openai(settings: Settings, stack: AsyncExitStack) -> list[Finding]:
    key = required(settings, "openai_api_key")["openai_api_key"]
    upstream = Upstream(settings.openai_base_url, key, connect_s=5, first_byte_s=10)
    stack.push_async_callback(upstream.close)
    response = await upstream.send("GET", "/models", {}, None)
    status = response.status
    response.close()
    if status != 200:
        return [Finding("openai", "fail", f"GET /models answers {status}", "check OPENAI_API_KEY and OPENAI_BASE_URL")]
    return [Finding("openai", "ok", "it answers, and takes our key")]


async def _stripe(settings: Settings, stack: AsyncExitStack) -> list[Finding]:
    if settings.stripe_secret_key is None:
        mend = "set STRIPE_SECRET_KEY when amounts should be billed"
        return [Finding("stripe", "warn", "not configured: amounts accrue and are not reported", mend)]
    billing = Billing(settings.stripe_secret_key.get_secret_value(), base_url=settings.stripe_base_url)
    stack.push_async_callback(billing.close)
    problems = await billing.check(settings.billing.meter_event_name)
    found = [Finding("stripe", "warn", problem, "see docs/billing.md") for problem in problems]
    pool = await open_pool(required(settings, "database_url")["database_url"], connections_max=1)
    stack.push_async_callback(pool.close)
    status = await Outbox(pool).status()
    found += [
        Finding("stripe", "warn", f"{count} meter event(s) {state}", "see docs/billing.md")
        for state in ("rejected", "unknown")
        if (count := status.counts.get(state, 0))
    ]
    if status.users_without_customer:
        says = f"{status.users_without_customer} user(s) with amounts have no Stripe customer; they accrue"
        found.append(Finding("stripe", "warn", says, "set users.stripe_customer_id"))
    return found or [Finding("stripe", "ok", "the meter is there, nothing is stuck")]


def _prices(book: pricing.Book, today: date) -> list[Finding]:
    age = (today - book.oldest_checked()).days
    level: Level = "warn" if age > PRICES_AGE_MAX_DAYS else "ok"
    mend = "update the gateway, or check the prices (docs/prices.md)" if level == "warn" else ""
    found = [Finding("prices", level, f"book {book.version}, oldest entry checked {age} day(s) ago", mend)]
    low = book.low_confidence_entries()
    if low:
        models = sorted({entry.model for entry in low})
        says = f"{len(low)} rate(s) are undecided, the higher one is charged: {', '.join(models)}"
        found.append(Finding("prices", "warn", says, "docs/prices.md says what each rests on"))
    return found
