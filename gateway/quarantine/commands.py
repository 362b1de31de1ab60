"""`gateway quarantine`: what could not become a ledger row, and what a person does about it (docs/operations.md)."""

import getpass
import socket
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final

from gateway.cli.console import Console, TextTable
from gateway.config.settings import Settings
from gateway.kit.errors import OptionError
from gateway.ledger.flush import correct_estimates
from gateway.ledger.store import Ledger
from gateway.quarantine.retry import Retried, retry, retry_all
from gateway.quarantine.store import Quarantine, QuarantinedEntry
from gateway.stores.one_connection import database

SHOWN_MAX: Final = 1000
REASON_CHARS_MAX: Final = 1000
_WHY: Final = "the quarantine is in PostgreSQL"
_SAYS: Final = {
    "row": "is a row now",
    "known": "closed: the ledger has this call already",
    "refused": "still refused",
    "closed": "was closed already",
}


async def list_entries(settings: Settings, console: Console, *, everything: bool, as_json: bool) -> None:
    """Prints the entries that wait, or all, oldest first; SHOWN_MAX at most. Raises ConfigError, DependencyDown."""
    async with database(settings, _WHY) as pool:
        found = await Quarantine(pool).entries(resolved_too=everything, entries_max=SHOWN_MAX)
    if as_json:
        console.print_json([_plain(entry) for entry in found])
    elif not found:
        console.say("Nothing waits in quarantine.")
    else:
        table = TextTable("id", "since", "event", "bytes", "why", "resolved")
        for entry in found:
            said = f"{entry.resolved_by}: {entry.resolution}" if entry.resolved_at is not None else ""
            columns = (str(entry.id), _at(entry.created_at), entry.event_id or "", str(entry.bytes), entry.kind, said)
            table.add_row(*columns)
        console.print_table(table)
        if len(found) == SHOWN_MAX:
            console.say(f"Only the first {SHOWN_MAX} are shown.")


async def show(settings: Settings, console: Console, *, entry_id: int, as_json: bool) -> None:
    """Prints one entry with its bytes. Raises OptionError when there is none, ConfigError, DependencyDown."""
    async with database(settings, _WHY) as pool:
        quarantine = Quarantine(pool)
        entry = await quarantine.entry(entry_id)
        if entry is None:
            raise _missing(entry_id)
        raw = await quarantine.raw(entry_id)
    plain = _plain(entry) | {"raw": raw.decode("utf-8", "backslashreplace")}
    if as_json:
        console.print_json(plain)
        return
    for name, value in plain.items():
        if value is not None:
            console.say(f"{name:<12}{value}")


async def retry_entries(
    settings: Settings, console: Console, *, entry_ids: Sequence[int], everything: bool, by: str | None, now: datetime
) -> bool:
    """Tries again to make rows of entries; whether all of them came to their end.

    Raises OptionError when neither entries nor all are asked for, ConfigError, DependencyDown.
    """
    if bool(entry_ids) == everything:
        raise OptionError("name the entries to retry, or give --all")
    came = True
    async with database(settings, _WHY) as pool:
        ledger = Ledger(pool, meter=settings.billing.meter_event_name, window_s=settings.billing.window_s)
        again = partial(retry, Quarantine(pool), ledger, partial(correct_estimates, ledger, now=now), who=_who(by))
        every = retry_all(Quarantine(pool), ledger, partial(correct_estimates, ledger, now=now), _who(by))
        async for done in every if everything else _each(again, entry_ids):
            if done.became == "missing":
                console.say(str(_missing(done.id)))
                came = False
                continue
            came = came and done.became in ("row", "known", "closed")
            event = f" ({done.event_id})" if done.event_id else ""
            why = f": {done.reason}" if done.reason else ""
            console.say(f"{done.id}{event} {_SAYS[done.became]}{why}")
    return came


async def _each(again: Any, entry_ids: Sequence[int]) -> AsyncIterator[Retried]:
    for entry_id in entry_ids:
        yield await again(entry_id=entry_id)


async def resolve(settings: Settings, console: Console, *, entry_id: int, reason: str, by: str | None) -> None:
    """Closes an entry that will be no row, with who and why. Closing it again changes nothing, and says so.

    Raises OptionError when there is none or no reason is given, ConfigError, DependencyDown.
    """
    reason = reason.strip()
    if not reason or len(reason) > REASON_CHARS_MAX or not reason.isprintable():
        raise OptionError(f"--reason: say why in 1 to {REASON_CHARS_MAX} printable characters")
    async with database(settings, _WHY) as pool:
        quarantine = Quarantine(pool)
        closed = await quarantine.resolve(entry_id, _who(by), reason)
        entry = await quarantine.entry(entry_id)
    if entry is None:
        raise _missing(entry_id)
    said = f"{entry.id} is closed" if closed else f"{entry.id} was closed already"
    console.say(f"{said}, by {entry.resolved_by}: {entry.resolution}")


def _who(by: str | None) -> str:
    """Who does this: as they say, else the login on this host."""
    if by is not None:
        if not by.strip() or len(by) > REASON_CHARS_MAX or not by.isprintable():
            raise OptionError(f"--by: a name of 1 to {REASON_CHARS_MAX} printable characters")
        return by.strip()
    try:
        login = getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        login = "unknown"
    return f"{login}@{socket.gethostname()}"


def _missing(entry_id: int) -> OptionError:
    return OptionError(f"id: there is no entry {entry_id}; `gateway quarantine list --all` lists them")


def _at(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _plain(entry: QuarantinedEntry) -> dict[str, Any]:
    return {name: _at(value) if isinstance(value, datetime) else value for name, value in entry._asdict().items()}
