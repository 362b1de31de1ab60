"""Checks that every host that took calls is there, or was stopped with nothing left."""

from contextlib import AsyncExitStack
from typing import Final

from gateway.config.settings import Settings, require_values
from gateway.doctor.findings import CheckResult
from gateway.hosts.opening import open_calls_in_flight
from gateway.hosts.store import Hosts
from gateway.kit.errors import DependencyDown, DependencyRefused
from gateway.stores.postgres import open_pool

SHOWN_MAX: Final = 5
FIX: Final = '`gateway hosts`; docs/operations.md, "A host that is gone"'


async def hosts(settings: Settings, stack: AsyncExitStack) -> list[CheckResult]:
    """Hosts that are silent, and those that were lost in the last day."""
    pool = await open_pool(require_values(settings, "database_url")["database_url"], connections_max=1)
    stack.push_async_callback(pool.close)
    found = await Hosts(pool).every()
    says = {
        "silent": "not seen in PostgreSQL for more than a minute",
        "lost": "lost, and not seen again; their calls in flight are settled as estimates (host_lost)",
    }
    results = []
    for state, what in says.items():
        names = [host.name for host in found if host.state == state]
        if names:
            listed = ", ".join(names[:SHOWN_MAX]) + (", …" if len(names) > SHOWN_MAX else "")
            results.append(CheckResult("hosts", "warn", f"{len(names)} host(s) {what}: {listed}", FIX))
    alive = sum(host.state == "alive" for host in found)
    results += await _check_redis(settings, stack)
    return results or [CheckResult("hosts", "ok", f"{alive} host(s) take calls")]


async def _check_redis(settings: Settings, stack: AsyncExitStack) -> list[CheckResult]:
    """Whether the login may use the keys of hosts. Where Redis is away, its own row says so."""
    url = require_values(settings, "redis_url")["redis_url"]
    try:
        await open_calls_in_flight(stack, settings, url).names()
    except DependencyRefused as error:
        fix = 'let it read and write under host: (docs/operations.md, "When something is away")'
        return [CheckResult("hosts", "warn", f"no call in flight outlives its host's disk: {error.detail}", fix)]
    except DependencyDown:
        return []
    return []
