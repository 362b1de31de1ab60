"""A proxy's connections to PostgreSQL: one pool, divided so that nothing beside a call can make a call wait."""

from contextlib import AsyncExitStack
from typing import Final, NamedTuple

from gateway.config.settings import Settings
from gateway.stores.opening import open_process_pool
from gateway.stores.postgres_share import Share

LOOK_UPS: Final = 2
"""Whose key, which meeting, whose response: each ends after two seconds (stores/postgres.LOOK_UP_S)."""
BUDGETS: Final = 1
"""Sums of the ledger, where Redis has no counter; a call of that budget waits for one."""
WEBHOOKS: Final = 1
"""One short insert each."""
PLANS: Final = 1
"""A look every 15 s, of two seconds at the most; while plans are not known, who asks for a key waits for it."""
ROOMS: Final = 2
"""The rooms API: lists may be long."""
CONNECTIONS_MAX: Final = LOOK_UPS + BUDGETS + PLANS + WEBHOOKS + ROOMS


class ProxyConnections(NamedTuple):
    """The shares. They add up to the pool, so none of them ever waits for a connection that another one holds."""

    look_ups: Share
    budgets: Share
    plans: Share
    webhooks: Share
    rooms: Share


async def open_connections(stack: AsyncExitStack, settings: Settings, name: str) -> ProxyConnections:
    """Closed by the stack; each connection is opened when it is first needed, and closed after five idle minutes."""
    pool = await open_process_pool(stack, settings, name, CONNECTIONS_MAX)
    return ProxyConnections(*(Share(pool, most) for most in (LOOK_UPS, BUDGETS, PLANS, WEBHOOKS, ROOMS)))
