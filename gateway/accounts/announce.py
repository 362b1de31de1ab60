"""What a command that has changed a key or a user says to the proxies, and how long it takes until they act on it.

PostgreSQL has the change by then. Here nothing fails: a proxy that is not reached looks by itself after `keys.fresh_s`.
"""

import asyncio
from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import Any, Final, NamedTuple

from gateway.accounts.opening import open_key_changes
from gateway.config.settings import KeySettings, Settings
from gateway.kit.errors import ConfigError, DependencyDown

WAIT_S: Final = 2.0
"""Seconds that running proxies have to confirm."""
SILENT_S: Final = 15
"""Seconds after which a proxy that is not heard of is not waited for: it was killed, or cannot reach Redis."""
LOOK_S: Final = 0.01
TIMEOUT_S: Final = 2.0
NAMED_MAX: Final = 5


class Announced(NamedTuple):
    """Who has acted on a change."""

    confirmed: int
    silent: tuple[str, ...] = ()
    """Proxies that have not, and may run."""
    problem: str | None = None
    """Why nobody could be told, or asked."""

    @property
    def in_effect(self) -> bool:
        """Whether every proxy that is known has acted: its next call goes by the change."""
        return self.confirmed > 0 and not self.silent and self.problem is None


async def announce(settings: Settings, *, keys: Iterable[str] = (), users: Iterable[str] = ()) -> Announced:
    """Tells the proxies that these keys (Unkey's ids) and users (our ids) have changed, and waits for them a little."""
    if settings.redis_url is None:
        return Announced(0, problem="REDIS_URL is not set")
    confirmed: set[str] = set()
    try:
        async with AsyncExitStack() as stack:
            changes = open_key_changes(stack, settings.redis_url.get_secret_value(), timeout_s=TIMEOUT_S)
            entry_id = await changes.publish(keys, users)
            # After the entry: a proxy that is not in the list yet begins behind it.
            proxies = await changes.proxies()
            running = {name for name, silent_s in proxies.items() if silent_s < SILENT_S}
            deadline = asyncio.get_running_loop().time() + WAIT_S
            while True:
                confirmed = await changes.confirmed(entry_id)
                if running <= confirmed or asyncio.get_running_loop().time() > deadline:
                    break
                await asyncio.sleep(LOOK_S)
    except (DependencyDown, ConfigError) as error:
        return Announced(len(confirmed), problem=str(error))
    return Announced(len(confirmed), tuple(sorted(proxies.keys() - confirmed)))


def describe(announced: Announced, bound: str) -> str:
    """For a person; `bound` says how long it takes where not every proxy has confirmed."""
    if announced.in_effect:
        count = announced.confirmed
        return f"In effect: {'the proxy that runs has' if count == 1 else f'all {count} proxies have'} confirmed it."
    if announced.problem is not None:
        return f"The proxies could not be told ({announced.problem}). {bound}"
    if not announced.silent:
        return f"No running proxy is known. {bound}"
    more = len(announced.silent) - NAMED_MAX
    names = ", ".join(announced.silent[:NAMED_MAX]) + (f" and {more} more" if more > 0 else "")
    all_told = announced.confirmed + len(announced.silent)
    return f"{announced.confirmed} of {all_told} proxies have confirmed it, not {names}. If they run: {bound}"


def as_fields(announced: Announced) -> dict[str, Any]:
    """The same for programs."""
    return {
        "in_effect": announced.in_effect,
        "proxies_confirmed": announced.confirmed,
        "proxies_silent": list(announced.silent),
        "proxies_problem": announced.problem,
    }


def bound_of_end(keys: KeySettings) -> str:
    """How long a proxy that has not heard may go on with what it has found out about a key (access/admission.py)."""
    return (
        f"Calls that begin within {keys.fresh_s:g} s may still get in (keys.fresh_s), where a proxy remembers the key; "
        f"up to {keys.fresh_s + keys.stale_s:g} s if Unkey does not answer (with keys.stale_s)."
    )


def bound_of_start(keys: KeySettings) -> str:
    """The same of a key that was refused."""
    return f"Where it was refused, it is asked about again within {keys.negative_s:g} s (keys.negative_s)."
