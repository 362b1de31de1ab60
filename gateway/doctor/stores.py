"""Checks PostgreSQL, Redis and the journal's disk, which record calls."""

import asyncio
import contextlib
import os
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from redis.exceptions import NoPermissionError, RedisError

from gateway.config.database_logins import PROCESSES
from gateway.config.settings import Settings, require_values
from gateway.doctor.findings import CheckResult, size, skew
from gateway.journal.folder import living_slots
from gateway.ledger.stream import Buffer
from gateway.limits.opening import open_limits
from gateway.processes.redis_memory import open_walks
from gateway.stores import disk, migrator
from gateway.stores.postgres import open_pool, translating_errors
from gateway.stores.postgres_health import read_ledger, read_server, try_write
from gateway.stores.process_roles import find_missing
from gateway.stores.redis import describe_outage, open_redis
from gateway.stores.redis_memory import PIECE

POSTGRES_MIN: Final = 15
SLOW_SYNC_MS: Final = 20.0
FREE_MIN: Final = 1 << 30
"""Bytes; a million calls take some 400 MB a day."""
REDIS_FULL: Final = 0.8
LOOKS_MAX: Final = 20
"""Pieces of a Redis that are looked at, of a thousand keys each."""
STREAM_OLD_S: Final = 300.0
SEGMENT_OLD_S: Final = 600.0
SHOWN_MAX: Final = 5


async def postgres(settings: Settings, stack: AsyncExitStack) -> list[CheckResult]:
    """The server, its promises, our schema and rights in it."""
    pool = await open_pool(require_values(settings, "database_url")["database_url"], connections_max=1)
    stack.push_async_callback(pool.close)
    found = []

    def say(level: str, says: str, fix: str) -> None:
        found.append(CheckResult("postgres", "fail" if level == "fail" else "warn", says, fix))

    with translating_errors():
        async with pool.acquire() as connection:
            begun = time.time()
            server = await read_server(connection)
            asked_s = time.time() - begun
            if server.major < POSTGRES_MIN:
                say("fail", f"version {server.version}: {POSTGRES_MIN} or later is needed", "upgrade PostgreSQL")
            if server.read_only:
                say(
                    "fail",
                    "it is read-only: a standby, or default_transaction_read_only",
                    "point DATABASE_URL at the primary",
                )
            if server.synchronous_commit in ("off", "local") or server.fsync == "off":
                says = f"synchronous_commit {server.synchronous_commit}, fsync {server.fsync}: a crash of it loses rows"
                say("warn", says, "turn both on: the journal deletes what PostgreSQL has confirmed")
            found += skew("postgres", server.now.timestamp(), begun, asked_s)
            try:
                versions = await migrator.compare(connection)
            except migrator.VersionTaken as error:
                say("fail", str(error), "look at who migrated it")
                return found
            if versions.behind:
                say(
                    "fail",
                    f"{len(versions.behind)} migration(s) not applied: {', '.join(versions.behind)}",
                    "gateway migrate",
                )
                return found
            if versions.ahead:
                says = (
                    f"{len(versions.ahead)} migration(s) that this version does not know: {', '.join(versions.ahead)}"
                )
                say("warn", says, "a newer gateway has migrated it: upgrade this one")
            found += _missing_roles(await find_missing(connection, PROCESSES))
            ledger = await read_ledger(connection)
            if ledger.may_write and not server.read_only:
                await try_write(connection)
    if not ledger.may_write:
        say("fail", "the login may not write the ledger", "grant it what docs/schema.md says, or use the owner's login")
    if ledger.quarantined:
        say(
            "warn",
            f"{ledger.quarantined} event(s) in usage_quarantine: money that is in no report",
            "`gateway quarantine list` (docs/operations.md)",
        )
    if ledger.unpriced:
        models = ", ".join(ledger.unpriced[:SHOWN_MAX]) + (", …" if len(ledger.unpriced) > SHOWN_MAX else "")
        say("warn", f"calls of the last 7 days without a price: {models}", "add the price (docs/prices.md)")
    return found or [CheckResult("postgres", "ok", f"version {server.version}, all migrations applied")]


def _missing_roles(missing: list[str]) -> list[CheckResult]:
    if not missing:
        return []
    says = f"role(s) {', '.join(missing)} missing: every process has all rights of DATABASE_URL"
    fix = "let an administrator make them, and run the _policies.sql again (docs/schema.md)"
    return [CheckResult("postgres", "warn", says, fix)]


async def redis(settings: Settings, stack: AsyncExitStack) -> list[CheckResult]:
    """Whether the stream is safe there, and moves."""
    client = open_redis(require_values(settings, "redis_url")["redis_url"])
    stack.push_async_callback(client.aclose)
    buffer = Buffer(client, stream=settings.flush.stream)
    await buffer.check_policy()
    begun = time.time()
    state = await buffer.state()
    found = skew("redis", state.unix_s, begun, time.time() - begun)
    if (refusal := await buffer.try_write()) is not None:
        says = f"it takes no writes: {refusal}"
        found.append(CheckResult("redis", "fail", says, "make room, or look at its log, its disk and its replicas"))
    if not state.append_only:
        says = "no append-only file: after a restart the journal has to send again what was in the stream"
        found.append(CheckResult("redis", "warn", says, "appendonly yes"))
    if state.write_fails:
        found.append(CheckResult("redis", "warn", "its last write to disk failed", "look at its log and its disk"))
    if state.limit_bytes and state.used_bytes > REDIS_FULL * state.limit_bytes:
        says = f"{size(state.used_bytes)} of {size(state.limit_bytes)} used: when it is full, events wait on disk"
        found.append(CheckResult("redis", "warn", says, "raise maxmemory, or run more workers"))
    if state.other_groups:
        says = f"other groups read the stream {settings.flush.stream}: {', '.join(state.other_groups)}"
        found.append(CheckResult("redis", "warn", says, "give each gateway a stream of its own (flush.stream)"))
    if state.oldest_unix_s is not None and (age_s := state.unix_s - state.oldest_unix_s) > STREAM_OLD_S:
        says = f"{state.entries} event(s) wait, the oldest for {age_s:.0f} s: nobody writes them to PostgreSQL"
        found.append(CheckResult("redis", "warn", says, "run `gateway serve` or `gateway worker`, and look at its log"))
    return found or [CheckResult("redis", "ok", f"noeviction; {state.entries} event(s) waiting in the stream")]


async def limits_redis(settings: Settings, stack: AsyncExitStack) -> list[CheckResult]:
    """The Redis of the limits, where they have one of their own."""
    if settings.limits_redis_url is None:
        return []
    limits = open_limits(stack, settings)
    await limits.check_policy()
    await limits.try_write()
    return [CheckResult("limits redis", "ok", "noeviction; it has the counters of limits and budgets")]


async def redis_memory(settings: Settings, stack: AsyncExitStack) -> list[CheckResult]:
    """What each Redis holds, by purpose. Walks through a bounded number of keys."""
    found = []
    for called, walk in ({} if settings.redis_url is None else open_walks(stack, settings, "doctor")).items():
        try:
            for _ in range(LOOKS_MAX):
                memory = await walk.look()
                if memory.is_whole:
                    break
        except NoPermissionError as error:
            fix = "give the login the rights in docs/operations.md"
            found.append(CheckResult("redis memory", "warn", f"{called}: not known: {error}", fix))
            continue
        except (RedisError, OSError, RuntimeError) as error:
            raise describe_outage(called, error, f"{type(error).__name__}: {error}") from error
        used = f"{size(memory.used)} of {size(memory.limit)}" if memory.limit else size(memory.used)
        parts = ", ".join(f"{purpose} {size(count)}" for purpose, count in memory.by_purpose.items() if count)
        says = f"{called}: {used}: {parts}" + ("" if memory.is_whole else f" (of the first {LOOKS_MAX * PIECE:,} keys)")
        if memory.limit and memory.used > REDIS_FULL * memory.limit:
            found.append(CheckResult("redis memory", "warn", says, "raise maxmemory, or see what is behind"))
        else:
            found.append(CheckResult("redis memory", "ok", says))
    return found


async def journal(settings: Settings, _stack: AsyncExitStack) -> list[CheckResult]:
    """The disk on which a call becomes durable, and what others left on it."""
    folder = settings.gateway_data_dir / "journal"
    try:
        found = await asyncio.to_thread(disk.probe, folder)
    except OSError as error:
        return [CheckResult("journal", "fail", f"{folder}: {error.strerror}", "make GATEWAY_DATA_DIR writable")]
    findings = []
    kept = sum(stat.st_blocks * 512 for stat in _stats(folder, "*.reserve").values())
    needed = max(0, settings.journal.reserve_bytes * (settings.gateway_workers + 1) - kept)
    if found.free_bytes < needed:
        says = f"{size(found.free_bytes)} free: calls are refused, the reserve alone is {size(needed)}"
        findings.append(CheckResult("journal", "fail", says, "make room, or set journal.reserve_bytes"))
    elif found.free_bytes < FREE_MIN + needed:
        findings.append(CheckResult("journal", "warn", f"{size(found.free_bytes)} free", "make room before it is full"))
    if found.sync_ms > SLOW_SYNC_MS:
        says = f"a synchronous write takes {found.sync_ms:.1f} ms, and each call waits for two"
        findings.append(CheckResult("journal", "warn", says, "a faster disk"))
    if found.kind in disk.NETWORK:
        says = f"{folder} is on {found.kind}: a network file system keeps neither locks nor promises as a disk does"
        findings.append(CheckResult("journal", "warn", says, "a local disk"))
    if found.kind in disk.FLEETING:
        says = f"{folder} is on {found.kind}: gone with this machine or container, and calls with it"
        findings.append(CheckResult("journal", "warn", says, "a disk or a volume that stays"))
    left = {
        path: stat
        for path, stat in _stats(folder, "*.jnl").items()
        if not path.with_name(f"{path.name}.confirmed").exists()
    }
    old = [path for path, stat in left.items() if time.time() - stat.st_mtime > SEGMENT_OLD_S]
    if old and "keeper" not in living_slots(folder):
        says = f"{len(old)} unconfirmed segment(s), and no keeper runs on this folder"
        findings.append(
            CheckResult("journal", "warn", says, "gateway journal inspect; `gateway serve` here ships them")
        )
    says = f"{folder} is writable; a synchronous write takes {found.sync_ms:.1f} ms; {size(found.free_bytes)} free"
    return findings or [CheckResult("journal", "ok", says)]


def _stats(folder: Path, pattern: str) -> dict[Path, os.stat_result]:
    """Files of a folder; one that a running keeper removes meanwhile is left out."""
    found = {}
    for path in folder.glob(pattern):
        with contextlib.suppress(FileNotFoundError):
            found[path] = path.stat()
    return found
