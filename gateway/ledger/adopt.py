"""What a journal folder holds, and taking over that of a host that is dead."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from gateway.config.settings import Settings
from gateway.journal.folder import SegmentInfo, copy_journal, living_slots, look, oldest_ms, segments_of
from gateway.kit.errors import OptionError
from gateway.ledger.store import Ledger
from gateway.stores.one_connection import database

IDS_MAX: Final = 1000
"""Ids asked for in one round trip."""


class Slot(NamedTuple):
    """All segments of one writing process."""

    name: str
    segments: int
    bytes: int
    alive: bool
    calls: int
    unsettled: tuple[str, ...]
    missing: tuple[str, ...] | None
    """Settled or not, not in PostgreSQL; None when it was not asked."""
    corrupt: int
    confirmed: int
    """Segments that the keeper has marked."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**self._asdict(), "oldest_missing": _when(oldest_ms(frozenset(self.missing or ())))}


def journal_of(settings: Settings) -> Path:
    """This gateway's own folder."""
    return settings.gateway_data_dir / "journal"


async def inspect(settings: Settings, folder: Path) -> list[Slot]:
    """What `folder` holds, by slot. Asks PostgreSQL what is missing there, where
    DATABASE_URL is set. Raises OptionError, DependencyDown."""
    alive = living_slots(folder)
    infos = [look(segment) for segment in segments_of(folder)]
    known: set[str] | None = None
    if settings.database_url is not None:
        ids = sorted(set().union(*(info.opened | info.settled for info in infos)))
        async with database(settings, "") as pool:
            ledger = Ledger(pool, meter=settings.billing.meter_event_name, window_s=settings.billing.window_s)
            known = set()
            for start in range(0, len(ids), IDS_MAX):
                known |= await ledger.find_confirmed(ids[start : start + IDS_MAX])
    return _slots(infos, alive, known)


class Adopted(NamedTuple):
    """What was taken over."""

    target: Path
    taken: list[SegmentInfo]
    known: int
    """Segments that had been taken before."""


def take_over(settings: Settings, folder: Path) -> Adopted:
    """Copies the segments of `folder` into our own. Raises OptionError, DependencyDown."""
    target = journal_of(settings)
    taken, known = copy_journal(folder, target)
    return Adopted(target, taken, known)


def _slots(infos: Sequence[SegmentInfo], alive: set[str], known: set[str] | None) -> list[Slot]:
    by_slot: dict[str, list[SegmentInfo]] = {}
    for info in infos:
        by_slot.setdefault(info.slot, []).append(info)
    # A call may be opened in one series and settled in another: swept by the keeper.
    settled = frozenset[str]().union(*(info.settled for info in infos))
    return [_slot(name, parts, name in alive, settled, known) for name, parts in sorted(by_slot.items())]


def _slot(
    name: str, parts: Sequence[SegmentInfo], alive: bool, settled: frozenset[str], known: set[str] | None
) -> Slot:
    opened = frozenset[str]().union(*(info.opened for info in parts))
    ids = opened.union(*(info.settled for info in parts))
    return Slot(
        name=name,
        segments=len(parts),
        bytes=sum(info.bytes for info in parts),
        alive=alive,
        calls=len(ids),
        unsettled=tuple(sorted(opened - settled)),
        missing=None if known is None else tuple(sorted(ids - known)),
        corrupt=sum(info.corrupt for info in parts),
        confirmed=sum(info.confirmed for info in parts),
    )


def _when(unix_ms: int | None) -> str | None:
    return None if unix_ms is None else datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat().replace("+00:00", "Z")


def find_journal(folder: Path) -> Path:
    """The journal that `folder` is, or that a data folder has in it. Raises OptionError when there is none."""
    if not folder.is_dir():
        raise OptionError(f"folder: there is no folder {folder}")
    inner = folder / "journal"
    return (inner if inner.is_dir() else folder).absolute()
