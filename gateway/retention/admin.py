"""Which personal data are due, and deleting them, as an operator asks for it."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

from gateway.config.settings import RetentionSettings, Settings
from gateway.kit.errors import OptionError
from gateway.kit.instants import rfc3339
from gateway.retention.retention import due, limits_of, take
from gateway.retention.store import Kind, Month, Retention
from gateway.stores.one_connection import database
from gateway.trail.record import intending
from gateway.trail.store import Deed


class DueData(NamedTuple):
    """What is due of one kind."""

    after_days: float
    months: list[Month]
    taken: int
    """How much was deleted; 0 where nothing was to be."""

    @property
    def due(self) -> int:
        """How many are due."""
        return sum(month.many for month in self.months)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "after_days": self.after_days,
            "due": self.due,
            "taken": self.taken,
            "months": [
                month._asdict() | {"oldest": rfc3339(month.oldest), "newest": rfc3339(month.newest)}
                for month in self.months
            ],
        }


async def apply_retention(
    settings: Settings,
    *,
    now: datetime,
    wanted: RetentionSettings,
    delete: bool,
    progress: Callable[[Kind, int], None],
) -> dict[Kind, DueData]:
    """What is due after so many days, by kind; deleted for good where `delete`. `wanted` goes before the settings.

    Raises OptionError when neither names anything, ConfigError, DependencyDown.
    """
    limits = {**limits_of(settings.retention), **limits_of(wanted)}
    if not limits:
        raise OptionError(
            "nothing to delete: give --participants-after, --inbox-after or --rooms-after in days, "
            "or set them under [retention]"
        )
    async with database(settings, "personal data are in PostgreSQL") as pool:
        store = Retention(pool)
        months = await due(store, limits, now)
        taken: dict[Kind, int] = {}
        if delete:
            numbers = {kind: sum(month.many for month in months[kind]) for kind in limits}
            before = {"after_days": dict(limits), "due": numbers}
            async with intending(settings, Deed("apply", "retention", None, before)) as intent:
                taken = await take(store, limits, now, progress)
                intent.learn({"taken": taken})
    return {kind: DueData(days, months[kind], taken.get(kind, 0)) for kind, days in limits.items()}
