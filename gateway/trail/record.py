"""How a command that changes something leaves an event: in the transaction of its change, or around one elsewhere.

`tests/house_rules/test_trail.py` runs every command that changes something and fails where no event is left.
"""

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from gateway.config.settings import Settings
from gateway.kit.errors import DependencyDown, Expected
from gateway.stores.one_connection import database
from gateway.stores.postgres import Connections, in_transaction
from gateway.stores.postgres_share import OneTransaction
from gateway.trail.actor import Actor, operator
from gateway.trail.store import Deed, Trail, Values

_WHY: Final = "what is changed by hand is recorded in PostgreSQL"
_ERROR_MAX: Final = 500


class TrailTransaction:
    """One transaction: what is changed over `connections`, and the events of it."""

    def __init__(self, connections: OneTransaction, actor: Actor) -> None:
        self.connections: Final = connections
        self.actor: Final = actor
        self._trail: Final = Trail(connections)

    async def write(self, deed: Deed) -> None:
        """Tells what is done in here."""
        await self._trail.write(self.actor, deed)


class Intent:
    """Something that is about to be done elsewhere, or in many steps; it has one outcome."""

    def __init__(self, event_id: int, actor: Actor, deed: Deed) -> None:
        self.actor: Final = actor
        self._event_id: Final = event_id
        self._deed = deed
        self.is_over = False

    def learn(self, after: Values, *, subject_id: str | None = None) -> None:
        """What the outcome will say, now that it is known."""
        self._deed = self._deed._replace(after=after, subject_id=subject_id or self._deed.subject_id)

    async def succeed(self, connections: Connections, after: Values | None = None) -> None:
        """The outcome, in the transaction of the last change where `connections` is one."""
        deed = self._deed if after is None else self._deed._replace(after=after)
        await Trail(connections).write(self.actor, deed, phase="done", intent_id=self._event_id)
        self.is_over = True

    async def fail(self, connections: Connections, error: Exception) -> None:
        """The other outcome. What was done by then is not known from it."""
        # Only the gateway's own errors are known to hold no secret.
        reason = f"{type(error).__name__}: {error}" if isinstance(error, Expected) else type(error).__name__
        deed = self._deed._replace(after={**(self._deed.after or {}), "error": reason[:_ERROR_MAX]})
        await Trail(connections).write(self.actor, deed, phase="failed", intent_id=self._event_id)
        self.is_over = True


@asynccontextmanager
async def recording(settings: Settings, pool: Connections, *, by: str | None = None) -> AsyncIterator[TrailTransaction]:
    """A transaction for changes and their events: all of it commits, or nothing. Raises OptionError, DependencyDown."""
    actor = operator(settings, by)
    async with in_transaction(pool) as connections:
        yield TrailTransaction(connections, actor)


@asynccontextmanager
async def intending(settings: Settings, deed: Deed, *, by: str | None = None) -> AsyncIterator[Intent]:
    """Writes down what is about to be done before it is done, and the outcome where the block has not.

    Raises ConfigError and DependencyDown before the block where the intent cannot be written: nothing was changed then.
    """
    actor = operator(settings, by)
    try:
        async with database(settings, _WHY) as pool:
            intent = Intent(await Trail(pool).write(actor, deed, phase="intent"), actor, deed)
    except DependencyDown as error:
        raise DependencyDown(error.what, f"{error.detail}. Nothing was changed") from error
    try:
        yield intent
    except Exception as error:
        if not intent.is_over:
            # Without PostgreSQL the intent stays without an outcome, which says that it is unknown.
            with contextlib.suppress(DependencyDown):
                async with database(settings, _WHY) as pool:
                    await intent.fail(pool, error)
        raise
    if not intent.is_over:
        async with database(settings, _WHY) as pool:
            await intent.succeed(pool)
