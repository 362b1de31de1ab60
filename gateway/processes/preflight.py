"""What must hold before `serve` and `worker` start their processes.

What is wrong is named with its fix. What is merely not there yet (a machine that boots, a gateway that is just being
stopped) is waited for, because a gateway that runs survives its absence too.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AsyncExitStack
from itertools import count, islice
from typing import Final, TypeVar
from urllib.parse import urlsplit

from gateway.cli.text import Say
from gateway.config.egress import DIRECT, unread_variable
from gateway.config.settings import Settings, require_values
from gateway.journal.folder import living_slots
from gateway.kit.errors import ConfigError, DependencyDown, DependencyRefused, StatementRefused
from gateway.ledger.stream import Buffer
from gateway.limits.opening import open_limits
from gateway.processes import marks, seen_stores
from gateway.stores import disk, migrator
from gateway.stores.postgres import open_pool, translating_errors
from gateway.stores.postgres_health import try_write
from gateway.stores.redis import open_redis

TELL_EVERY_S: Final = 5.0
TELL_SELDOM_S: Final = 300.0
"""Seconds between two words of a gateway that serves meanwhile."""
TRY_EVERY_S: Final = 0.5
KNOWN_WAIT_S: Final = 5.0
"""Seconds for which stores that were seen before are waited for; without them the gateway serves what it can."""
T = TypeVar("T")


class Stopped(Exception):
    """The process was told to stop before it had started."""


class StoreAway(ConfigError):
    """A store has not come up in time."""


class Patience:
    """How long what is not there yet is waited for, and whether the operator has had enough."""

    def __init__(self, wait_s: float, stop: asyncio.Event, say: Say) -> None:
        self._until_s: Final = time.monotonic() + wait_s
        self._stop: Final = stop
        self._say: Final = say

    async def until_there(self, variable: str, ask: Callable[[], Awaitable[T]]) -> T:
        """What `ask` returns, once it does. Raises Stopped, ConfigError naming what refuses or stays away."""
        told_s = 0.0
        while True:
            try:
                return await ask()
            except StatementRefused as error:
                raise ConfigError(f"{variable}: {error.what} refuses a statement: {error.detail}") from None
            except DependencyRefused as error:
                detail = error.detail.rstrip(".")
                raise ConfigError(f"{variable}: {error.what} refuses: {detail}. Correct {variable}.") from None
            except DependencyDown as error:
                now = time.monotonic()
                if now >= self._until_s:
                    fix = f"Start it, or correct {variable}; --wait gives it longer."
                    detail = error.detail.rstrip(".")
                    raise StoreAway(f"{variable}: {error.what} is not there: {detail}. {fix}") from None
                if now >= told_s:
                    left_s = self._until_s - now
                    how_long = "" if left_s == math.inf else f", {left_s:.0f} s more"
                    self._say(f"waiting for {error.what} ({variable}){how_long}: {error.detail}")
                    told_s = now + (TELL_EVERY_S if left_s < math.inf else TELL_SELDOM_S)
            try:
                await asyncio.wait_for(self._stop.wait(), TRY_EVERY_S)
            except TimeoutError:
                continue
            raise Stopped


def check_egress(settings: Settings, environ: Mapping[str, str]) -> None:
    """Raises ConfigError where the environment names a proxy for OpenAI that the gateway would pass by."""
    url = urlsplit(settings.openai_base_url)
    variable = unread_variable(environ, url.hostname or "")
    if variable is None or settings.egress.proxy is not None or url.scheme != "https":
        return
    raise ConfigError(
        f"{variable} is set, and the gateway does not read it. Set EGRESS__PROXY (egress.proxy) to the same address, "
        f"or to `{DIRECT}` when OpenAI can be reached without a proxy."
    )


async def free_slots(
    settings: Settings, workers: int, patience: Patience, *, beside: Collection[int] | None = None
) -> list[int]:
    """Slots of the journal for so many proxies. `beside`: the slots of a gateway that runs and is to be taken over; a
    proxy of it that has just died comes back to its own.

    Those of a gateway whose parent was killed may still be finishing their calls: they keep theirs, and its keeper is
    soon gone. A keeper that stays belongs to a gateway that runs. Raises ConfigError: that, or the folder cannot be
    written.
    """
    folder = settings.gateway_data_dir / "journal"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        await asyncio.to_thread(disk.probe, folder)
    except OSError as error:
        if error.errno not in disk.FULL:  # a full disk is lived with: the keeper is needed to make room
            wrong = f"the journal cannot be written: {folder}: {error.strerror}"
            raise ConfigError(f"GATEWAY_DATA_DIR: {wrong}. Make it writable for this user, or name another.") from None

    async def ask() -> set[str]:
        writers = living_slots(folder)
        if "keeper" in writers and beside is None:
            told = f"{folder} is in use by another gateway, stop that one (or take over from it: --take-over)"
            raise DependencyDown("the journal", told)
        return writers | {f"proxy-{slot}" for slot in beside or ()}

    taken = await patience.until_there("GATEWAY_DATA_DIR", ask)
    return list(islice((slot for slot in count() if f"proxy-{slot}" not in taken), workers))


async def may_start(
    settings: Settings, wait_s: float, stop: asyncio.Event, say: Say, *, takes_over: bool = False
) -> bool:
    """Whether all is there. False: a store is away, and may be, because this folder has served with these stores
    before; `see_stores` then checks them. One that takes over waits for all of them: the gateway that runs knows its
    keys, and goes on meanwhile. Raises Stopped, ConfigError.
    """
    known = not takes_over and seen_stores.is_known(settings)
    try:
        await see_stores(settings, min(wait_s, KNOWN_WAIT_S) if known else wait_s, stop, say)
    except StoreAway as error:
        if not known:
            raise
        say(f"starting without it, as it was seen from this folder before. {error}")
        return False
    return True


async def see_stores(settings: Settings, wait_s: float, stop: asyncio.Event, say: Say) -> None:
    """As `stores_are_there`, for `serve`, and remembers that they were. Raises Stopped."""
    await stores_are_there(settings, Patience(wait_s, stop, say), say)
    seen_stores.remember(settings)


async def stores_are_there(
    settings: Settings, patience: Patience, say: Say, *, command: marks.Command = "serve"
) -> None:
    """Returns when PostgreSQL and Redis are there and fit. Raises ConfigError naming what is wrong.

    One that only reads is waited for as one that is away: a failover may be under way. A Redis that is full is said
    and lived with: the worker that would empty it must be able to start.
    """
    await patience.until_there("DATABASE_URL", lambda: _postgres(settings))
    dsn = require_values(settings, "database_url")["database_url"]
    real = marks.real_vendors(settings)
    await patience.until_there("DATABASE_URL", lambda: marks.mark(dsn, command, real))
    refusal = await patience.until_there("REDIS_URL", lambda: _redis(settings))
    if refusal is not None:
        say(f"REDIS_URL: it takes no writes, so events stay in the journal: {refusal}")
    if settings.limits_redis_url is not None:
        await patience.until_there("LIMITS_REDIS_URL", lambda: _limits_redis(settings))


async def _postgres(settings: Settings) -> None:
    pool = await open_pool(require_values(settings, "database_url")["database_url"], connections_max=1)
    try:
        with translating_errors():
            async with pool.acquire() as connection:
                try:
                    versions = await migrator.compare(connection)
                except migrator.VersionTaken as error:
                    raise ConfigError(f"DATABASE_URL: {error}") from None
                if not versions.behind:
                    await try_write(connection)
    finally:
        await pool.close()
    if versions.behind:
        missing = f"{len(versions.behind)} migration(s) not applied ({', '.join(versions.behind)})"
        raise ConfigError(f"DATABASE_URL: {missing}. Run `gateway migrate` first.")


async def _limits_redis(settings: Settings) -> None:
    async with AsyncExitStack() as stack:
        await open_limits(stack, settings).check_policy()


async def _redis(settings: Settings) -> str | None:
    client = open_redis(require_values(settings, "redis_url")["redis_url"])
    try:
        buffer = Buffer(client, stream=settings.flush.stream)
        await buffer.check_policy()
        return await buffer.try_write()
    finally:
        await client.aclose()
