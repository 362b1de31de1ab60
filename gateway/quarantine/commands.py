"""What `gateway quarantine` shows."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from gateway.cli.console import Console, TextTable
from gateway.config.settings import Settings
from gateway.quarantine import admin
from gateway.quarantine.store import QuarantinedEntry

_OUTCOMES: Final = {
    "row": "is a row now",
    "known": "closed: the ledger has this call already",
    "refused": "still refused",
    "closed": "was closed already",
}


async def list_entries(settings: Settings, console: Console, *, everything: bool, as_json: bool) -> None:
    """The entries that wait, or all."""
    entries = await admin.list_entries(settings, everything=everything)
    if as_json:
        console.print_json([_plain(entry) for entry in entries])
    elif not entries:
        console.say("Nothing waits in quarantine.")
    else:
        console.print_table(_table(entries))
        if len(entries) == admin.SHOWN_MAX:
            console.say(f"Only the first {admin.SHOWN_MAX} are shown.")


async def show(settings: Settings, console: Console, *, entry_id: int, as_json: bool) -> None:
    """One entry with its bytes."""
    entry, raw = await admin.read_entry(settings, entry_id=entry_id)
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
    """A line for each entry as soon as it is done; whether all of them are closed."""
    all_closed = True
    entries = admin.retry_entries(settings, entry_ids=entry_ids, everything=everything, by=by, now=now)
    async for retried in entries:
        if retried.became == "missing":
            console.say(str(admin.no_entry(retried.id)))
        else:
            event = f" ({retried.event_id})" if retried.event_id else ""
            why = f": {retried.reason}" if retried.reason else ""
            console.say(f"{retried.id}{event} {_OUTCOMES[retried.became]}{why}")
        all_closed = all_closed and retried.became in ("row", "known", "closed")
    return all_closed


async def resolve(settings: Settings, console: Console, *, entry_id: int, reason: str, by: str | None) -> None:
    """That an entry is closed, by whom and why."""
    entry, closed_now = await admin.resolve(settings, entry_id=entry_id, reason=reason, by=by)
    says = f"{entry.id} is closed" if closed_now else f"{entry.id} was closed already"
    console.say(f"{says}, by {entry.resolved_by}: {entry.resolution}")


def _table(entries: Sequence[QuarantinedEntry]) -> TextTable:
    table = TextTable("id", "since", "event", "bytes", "why", "resolved")
    for entry in entries:
        resolved = f"{entry.resolved_by}: {entry.resolution}" if entry.resolved_at is not None else ""
        since = _format_time(entry.created_at)
        table.add_row(str(entry.id), since, entry.event_id or "", str(entry.bytes), entry.kind, resolved)
    return table


def _format_time(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _plain(entry: QuarantinedEntry) -> dict[str, Any]:
    return {
        name: _format_time(value) if isinstance(value, datetime) else value for name, value in entry._asdict().items()
    }
