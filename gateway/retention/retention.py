"""Retention: deletes personal data some days after the end of what they belong to; billing data stays.

May be broken off and begun again, by two at once as well. Must not touch the ledger.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog

from gateway.config.settings import RetentionSettings
from gateway.retention.store import Kind, Month

KINDS: Final[tuple[Kind, ...]] = ("participants", "inbox", "rooms")
BATCH: Final = 500
DAY_S: Final = 86_400.0
LOOK_S: Final = 3600.0
"""Seconds between two looks whether it is this worker's turn."""
NAME: Final = "retention"
_log: Final = structlog.get_logger("gateway.retention")


class RetentionStore(Protocol):
    """What retention needs of PostgreSQL."""

    async def due(self, kind: Kind, before: datetime) -> list[Month]: ...
    async def take(self, kind: Kind, before: datetime, *, rows_max: int) -> int: ...


class Turns(Protocol):
    """Whose turn it is."""

    async def lease(self, name: str, seconds: float) -> bool: ...


Limits = Mapping[Kind, float]
"""Days after which each kind goes; what is not named stays."""


def limits_of(settings: RetentionSettings) -> Limits:
    """The days that the settings name."""
    days = {"participants": settings.participants_days, "inbox": settings.inbox_days, "rooms": settings.rooms_days}
    return {kind: days[kind] for kind in KINDS if days[kind] is not None}  # type: ignore[misc]  # None is left out


async def due(store: RetentionStore, limits: Limits, now: datetime) -> dict[Kind, list[Month]]:
    """What would go, by kind and month. Raises DependencyDown."""
    return {kind: await store.due(kind, now - timedelta(days=days)) for kind, days in limits.items()}


async def take(
    store: RetentionStore, limits: Limits, now: datetime, progress: Callable[[Kind, int], None]
) -> dict[Kind, int]:
    """Deletes it; returns how much of each kind. `progress` is called as it proceeds. Raises DependencyDown."""
    taken = dict.fromkeys(limits, 0)
    for kind, days in limits.items():
        while some := await store.take(kind, now - timedelta(days=days), rows_max=BATCH):
            taken[kind] += some
            progress(kind, taken[kind])
    return taken


async def take_daily(store: RetentionStore, turns: Turns, limits: Limits, now: datetime) -> None:
    """Takes it away once a day, by one worker at a time: nothing where it is another's turn. Raises DependencyDown."""
    if await turns.lease(NAME, DAY_S):
        taken = await take(store, limits, now, lambda *_: None)
        if any(taken.values()):
            _log.info("personal data taken away", **taken)
