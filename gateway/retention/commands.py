"""What `gateway retention` shows."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from gateway.cli.command import note
from gateway.cli.console import Console, TextTable
from gateway.config.settings import RetentionSettings, Settings
from gateway.retention.admin import DueData, apply_retention
from gateway.retention.store import Kind

_LABELS: Final[dict[Kind, str]] = {
    "participants": "names and addresses of participants",
    "inbox": "bodies of webhooks",
    "rooms": "what is sealed in rooms",
}


async def retention(
    settings: Settings, console: Console, *, now: datetime, wanted: RetentionSettings, apply: bool, as_json: bool
) -> None:
    """What is due by kind and month, and how much of it was deleted."""

    def progress(kind: Kind, count: int) -> None:
        if not as_json:
            note(f"{_LABELS[kind]}: {count:,}")

    found = await apply_retention(settings, now=now, wanted=wanted, delete=apply, progress=progress)
    if as_json:
        console.print_json({"applied": apply, "kinds": {kind: data.to_json() for kind, data in found.items()}})
        return
    console.print_table(_table(found))
    taken = sum(data.taken for data in found.values())
    console.say(f"Taken away for good: {taken:,}." if apply else "Nothing was changed; --apply takes it away for good.")


def _table(found: Mapping[Kind, DueData]) -> TextTable:
    table = TextTable("what", "month", "oldest", "newest")
    table.add_column("how many", right=True)
    for kind, data in found.items():
        table.add_row(f"{_LABELS[kind]}, over for {data.after_days:g} days", "", "", "", f"{data.due:,}")
        for month in data.months:
            days = (f"{month.oldest:%Y-%m-%d}", f"{month.newest:%Y-%m-%d}")
            table.add_row("", month.month, *days, f"{month.many:,}")
    return table
