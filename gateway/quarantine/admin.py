"""What a person does about usage that could not become a ledger row: look, retry, close (docs/operations.md)."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from functools import partial
from typing import Final

from gateway.config.settings import Settings
from gateway.kit.errors import OptionError
from gateway.ledger.correct import correct_settled
from gateway.ledger.store import Ledger
from gateway.quarantine.retry import Retried, retry, retry_all
from gateway.quarantine.store import Quarantine, QuarantinedEntry
from gateway.stores.one_connection import database
from gateway.stores.postgres import Connections
from gateway.trail.actor import operator
from gateway.trail.record import recording
from gateway.trail.store import Deed

SHOWN_MAX: Final = 1000
REASON_CHARS_MAX: Final = 1000
_WHY: Final = "the quarantine is in PostgreSQL"


async def list_entries(settings: Settings, *, everything: bool) -> list[QuarantinedEntry]:
    """The entries that wait, or all, oldest first; SHOWN_MAX at most. Raises ConfigError, DependencyDown."""
    async with database(settings, _WHY) as pool:
        return await Quarantine(pool).entries(resolved_too=everything, entries_max=SHOWN_MAX)


async def read_entry(settings: Settings, *, entry_id: int) -> tuple[QuarantinedEntry, bytes]:
    """One entry and its bytes. Raises OptionError when there is none, ConfigError, DependencyDown."""
    async with database(settings, _WHY) as pool:
        quarantine = Quarantine(pool)
        entry = await quarantine.entry(entry_id)
        if entry is None:
            raise no_entry(entry_id)
        return entry, await quarantine.raw(entry_id)


async def retry_entries(
    settings: Settings, *, entry_ids: Sequence[int], everything: bool, by: str | None, now: datetime
) -> AsyncIterator[Retried]:
    """Tries again to make rows of entries, and yields what became of each.

    Raises OptionError when neither entries nor all are asked for, ConfigError, DependencyDown.
    """
    if bool(entry_ids) == everything:
        raise OptionError("name the entries to retry, or give --all")
    operator(settings, by)  # a wrong name is said before anything is done
    async with database(settings, _WHY) as pool:
        quarantine = Quarantine(pool)
        ledger = Ledger(pool, meter=settings.billing.meter_event_name, window_s=settings.billing.window_s)
        correct = partial(correct_settled, ledger, now=now)
        close = partial(_close, settings, pool, "retry", by)
        if everything:
            async for retried in retry_all(quarantine, ledger, correct, close):
                yield retried
        for entry_id in entry_ids:
            yield await retry(quarantine, ledger, correct, entry_id, close)


async def resolve(settings: Settings, *, entry_id: int, reason: str, by: str | None) -> tuple[QuarantinedEntry, bool]:
    """Closes an entry that will not become a row, with who and why; False when it was closed before.

    Raises OptionError when there is none or no reason is given, ConfigError, DependencyDown.
    """
    reason = reason.strip()
    if not reason or len(reason) > REASON_CHARS_MAX or not reason.isprintable():
        raise OptionError(f"--reason: say why in 1 to {REASON_CHARS_MAX} printable characters")
    async with database(settings, _WHY) as pool:
        closed_now = await _close(settings, pool, "resolve", by, entry_id, reason)
        entry = await Quarantine(pool).entry(entry_id)
    if entry is None:
        raise no_entry(entry_id)
    return entry, closed_now


def no_entry(entry_id: int) -> OptionError:
    """No entry has this id."""
    return OptionError(f"id: there is no entry {entry_id}; `gateway quarantine list --all` lists them")


async def _close(
    settings: Settings, pool: Connections, verb: str, by: str | None, entry_id: int, resolution: str
) -> bool:
    """Closes an entry, with who did it; False when it is closed already, or not there."""
    async with recording(settings, pool, by=by) as record:
        closed = await Quarantine(record.connections).resolve(entry_id, record.actor.name, resolution)
        if closed:
            await record.write(Deed(verb, "quarantine", str(entry_id), None, {"resolution": resolution}))
    return closed
