"""What `gateway journal` shows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.cli.command import note
from gateway.cli.console import Console, TextTable
from gateway.config.settings import Settings
from gateway.ledger import adopt as use_case
from gateway.ledger.adopt import Slot
from gateway.ledger.resend import Between, send_again


async def inspect(settings: Settings, console: Console, *, folder: Path | None, as_json: bool) -> None:
    """A line per slot of a journal folder, ours by default, and what of it PostgreSQL does not have."""
    path = use_case.journal_of(settings) if folder is None else folder
    slots = await use_case.inspect(settings, path)
    if as_json:
        console.print_json([slot.to_json() for slot in slots])
        return
    console.print_table(_table(path, slots))
    for slot in slots:
        for event_id in slot.missing or ():
            console.say(f"not in PostgreSQL: {event_id} ({slot.name})")


def adopt(settings: Settings, console: Console, *, folder: Path) -> None:
    """What was taken over from a dead host, and what to do next."""
    target, taken, known = use_case.take_over(settings, folder)
    for info in taken:
        calls, unsettled = len(info.opened | info.settled), len(info.opened - info.settled)
        console.say(f"adopted {info.path.name}: {calls} calls, {unsettled} of them without a settle")
    console.say(f"{len(taken)} segment(s) adopted into {target}, {known} had been before.")
    if taken:
        console.say(
            "The keeper of `gateway serve` on this folder ships them, and settles what is open; start it if none runs.",
            f"Keep {folder} until `gateway journal inspect` says that nothing is missing in PostgreSQL.",
        )


async def resend(settings: Settings, console: Console, *, between: Between, dry_run: bool, as_json: bool) -> None:
    """What of this host's journal PostgreSQL lacks, and that it was sent."""
    done = await send_again(settings, between, dry_run=dry_run, say=note)
    if as_json:
        console.print_json(done._asdict())
        return
    console.say(
        f"{done.settled} settled calls in {done.segments} segment(s) of {use_case.journal_of(settings)}.",
        f"Not in PostgreSQL: {done.missing}. There as an estimate, and exact here: {done.corrections}.",
    )
    if done.sent:
        console.say(f"{done.sent} sent. A worker writes them; then this command must find none.")
    elif done.missing or done.corrections:
        console.say("Nothing was sent (--dry-run).")


def _table(path: Path, slots: Sequence[Slot]) -> TextTable:
    table = TextTable(title=f"journal {path}", boxed=True)
    for name in ("slot", "writer"):
        table.add_column(name)
    columns: Mapping[str, Any] = {
        "segments": lambda slot: slot.segments,
        "confirmed": lambda slot: slot.confirmed,
        "bytes": lambda slot: slot.bytes,
        "calls": lambda slot: slot.calls,
        "without settle": lambda slot: len(slot.unsettled),
        "not in PostgreSQL": lambda slot: "not asked" if slot.missing is None else len(slot.missing),
        "corrupt lines": lambda slot: slot.corrupt,
    }
    for name in columns:
        table.add_column(name, right=True)
    for slot in slots:
        table.add_row(slot.name, "alive" if slot.alive else "dead", *(str(figure(slot)) for figure in columns.values()))
    return table
