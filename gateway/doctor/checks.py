"""Asks every dependency, and says what is wrong and how to fix it. Changes nothing.

A finding is `fail` when a call could not be metered, `warn` when something else deserves a look. The checks run side by
side, none of them for longer than CHECK_S seconds.
"""

import asyncio
import os
import resource
from contextlib import AsyncExitStack
from datetime import date
from typing import Final

from redis.exceptions import MasterDownError, OutOfMemoryError, ReadOnlyError

import pricing
import pricing.data
from gateway.config.problems import without_effect
from gateway.config.settings import Settings
from gateway.doctor import audits, daily, hosts, rooms, stores, stripe, vendors
from gateway.doctor.findings import Check, CheckResult, Level
from gateway.doctor.transport import check_stores_tls
from gateway.http.connections import FILES_KEPT, FILES_PER_CALL
from gateway.kit.errors import ConfigError, DependencyDown, DependencyRefused, StatementRefused
from gateway.kit.loopback import is_loopback

CHECK_S: Final = 20.0
PRICES_AGE_MAX_DAYS: Final = 30
CHECKS: Final[tuple[tuple[str, Check], ...]] = (
    ("postgres", stores.postgres),
    ("redis", stores.redis),
    ("limits redis", stores.limits_redis),
    ("redis memory", stores.redis_memory),
    ("journal", stores.journal),
    ("audit", audits.kept_audit),
    ("hosts", hosts.hosts),
    ("unkey", vendors.unkey),
    ("openai", vendors.openai),
    ("stripe", stripe.stripe),
    ("daily", daily.daily),
    ("rooms", rooms.rooms),
)
FIXES: Final = {
    "postgres": "DATABASE_URL",
    "redis": "REDIS_URL",
    "limits redis": "LIMITS_REDIS_URL",
    "unkey": "UNKEY_BASE_URL or UNKEY_ROOT_KEY",
    "openai": "OPENAI_BASE_URL or OPENAI_API_KEY",
    "stripe": "STRIPE_BASE_URL or STRIPE_SECRET_KEY",
    "daily": "DAILY_BASE_URL or DAILY_API_KEY",
}
"""What to look at when a dependency is not there."""
FIX_STATEMENT: Final = "gateway migrate, or grant the login what docs/schema.md says; else it is a bug of this version"


async def run_checks(settings: Settings, *, today: date, verbose: bool = False) -> list[CheckResult]:
    """Every finding, in the order of CHECKS."""
    found = await asyncio.gather(*(run_check(what, check, settings) for what, check in CHECKS))
    own = [*prices(read_book(), today, verbose=verbose), *check_host(settings), *check_secrets(settings)]
    own += check_files(settings, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    return [*(finding for part in found for finding in part), *own]


async def run_check(what: str, check: Check, settings: Settings) -> list[CheckResult]:
    """One check, with what it opened closed again. Never raises for what is wrong out there."""
    try:
        async with asyncio.timeout(CHECK_S), AsyncExitStack() as stack:
            return await check(settings, stack)
    except ConfigError as error:
        return [CheckResult(what, _level(what), str(error), "correct the configuration")]
    except StatementRefused as error:
        return [CheckResult(what, _level(what), error.detail, FIX_STATEMENT)]
    except DependencyDown as error:
        return [_away(what, error)]
    except TimeoutError:
        fix = f"look at what is behind {FIXES.get(what, what)}"
        return [CheckResult(what, _level(what), f"no answer within {CHECK_S:.0f} s", fix)]


def _away(what: str, error: DependencyDown) -> CheckResult:
    refuses = isinstance(error, DependencyRefused)
    if error.what != what and error.what in dict(CHECKS):
        # Its own row says why; once is enough.
        says = f"not checked: {error.what} {'refuses us' if refuses else 'is away'}"
        return CheckResult(what, _level(what), says, f"see {error.what}")
    named = FIXES.get(error.what, error.what)
    if isinstance(error.__cause__, OutOfMemoryError):
        return CheckResult(what, _level(what), "it is full, so calls with a hard budget are refused", "raise maxmemory")
    if isinstance(error.__cause__, ReadOnlyError | MasterDownError):
        return CheckResult(what, _level(what), "it is a read-only replica", f"point {named} at the master")
    return CheckResult(what, _level(what), error.detail, f"{'' if refuses else 'start it, or '}correct {named}")


def _level(what: str) -> Level:
    """Without these a call is metered all the same."""
    return "warn" if what in ("redis memory", "stripe", "daily", "rooms", "hosts") else "fail"


def read_book() -> pricing.Book:
    """The prices that ship with this version."""
    return pricing.parse(pricing.data.read_texts())


def prices(book: pricing.Book, today: date, *, verbose: bool) -> list[CheckResult]:
    """How old the prices are, and which of them are undecided."""
    age = (today - book.oldest_checked()).days
    level: Level = "warn" if age > PRICES_AGE_MAX_DAYS else "ok"
    fix = "update the gateway, or check the prices (docs/prices.md)" if level == "warn" else ""
    found = [CheckResult("prices", level, f"book {book.version}, oldest entry checked {age} day(s) ago", fix)]
    low = book.low_confidence_entries()
    if low:
        models = sorted({entry.model for entry in low})
        listed = f": {', '.join(models)}" if verbose else " (--verbose lists them)"
        says = f"{len(low)} rates of {len(models)} models are undecided, the higher one is charged{listed}"
        found.append(CheckResult("prices", "warn", says, "docs/prices.md says what each rests on"))
    return found


def check_files(settings: Settings, hard: int) -> list[CheckResult]:
    """Whether a proxy may have the descriptors for half of its connections. The soft limit does not matter."""
    wanted = FILES_KEPT + FILES_PER_CALL * settings.connections.max
    room = max(1, (hard - FILES_KEPT) // FILES_PER_CALL)
    if hard == resource.RLIM_INFINITY or room >= settings.connections.max // 2:
        return []
    says = f"hard limit of open files {hard}: a proxy takes {room} connections of {settings.connections.max}"
    fix = f"{wanted} at least, where `serve` runs too (LimitNOFILE, ulimits), or fewer CONNECTIONS__MAX"
    return [CheckResult("open files", "warn", says, fix)]


def check_secrets(settings: Settings) -> list[CheckResult]:
    """Whether what comes from Redis is believed only when a gateway has written it."""
    if settings.gateway_secrets is None:
        says = "not set: whoever can write to Redis can add usage, and a new proxy knows no good key"
        return [CheckResult("GATEWAY_SECRETS", "warn", says, "the same ring on every host (docs/operations.md)")]
    if settings.flush.admit_unsigned:
        says = "flush.admit_unsigned: usage that no gateway has signed is believed"
        return [CheckResult("GATEWAY_SECRETS", "warn", says, "turn it off once every host has GATEWAY_SECRETS")]
    return []


def check_host(settings: Settings) -> list[CheckResult]:
    """This host, and where the gateway listens on it; what of its configuration does nothing."""
    found = [CheckResult("configuration", "warn", line, "remove them") for line in without_effect(settings)]
    found += check_stores_tls(settings)
    if not is_loopback(settings.gateway_host):
        says = f"GATEWAY_HOST {settings.gateway_host}: reached from outside, and without TLS of its own"
        before = "" if settings.connections.trusted_proxies else ", named in CONNECTIONS__TRUSTED_PROXIES"
        found.append(CheckResult("address", "warn", says, f"a proxy with TLS before it{before}"))
    if not is_loopback(settings.gateway_admin_host):
        says = f"GATEWAY_ADMIN_HOST {settings.gateway_admin_host}: the admin address has no password"
        found.append(CheckResult("address", "warn", says, "an address that only your monitoring reaches"))
    cores = os.cpu_count() or 1
    if settings.gateway_workers > cores:
        says = f"GATEWAY_WORKERS {settings.gateway_workers} on {cores} core(s): more proxies than can run"
        found.append(CheckResult("address", "warn", says, f"{cores} at most"))
    return found
