"""What `gateway log` shows."""

import csv
import io
from datetime import datetime
from typing import Any, Final

from gateway.cli.console import Console, TextTable
from gateway.cli.csv_text import text_field
from gateway.cli.text import json_text
from gateway.config.settings import Settings
from gateway.kit.errors import OptionError
from gateway.kit.instants import rfc3339
from gateway.stores.one_connection import database
from gateway.trail.store import LoggedEvent, Trail

LIMIT_MAX: Final = 100_000
_WHY: Final = "what was changed by hand is recorded in PostgreSQL"
_COLUMNS: Final = (
    "id", "at", "actor_kind", "actor", "verb", "subject", "subject_id", "phase", "intent_id", "before", "after",
)  # fmt: skip


async def show_log(
    settings: Settings,
    console: Console,
    *,
    since: datetime | None,
    by: str | None,
    what: str | None,
    limit: int,
    as_json: bool,
    as_csv: bool,
) -> None:
    """The newest events, the oldest of them first. Raises OptionError, ConfigError, DependencyDown."""
    if as_json and as_csv:
        raise OptionError("--json and --csv contradict each other: give one")
    if not 1 <= limit <= LIMIT_MAX:
        raise OptionError(f"--limit: 1 to {LIMIT_MAX}")
    async with database(settings, _WHY) as pool:
        events = await Trail(pool).events(since=since, by=by, what=what, rows_max=limit)
    if as_json:
        console.print_json([_plain(event) for event in events])
    elif as_csv:
        console.write_lines(_csv(events))
    elif events:
        console.print_table(_table(events))
    else:
        console.say("No events.")


def _plain(event: LoggedEvent) -> dict[str, Any]:
    return {name: getattr(event, name) for name in _COLUMNS} | {"at": rfc3339(event.at)}


def _csv(events: list[LoggedEvent]) -> str:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(_COLUMNS)
    for event in events:
        writer.writerow(text_field(_text(value)) for value in _plain(event).values())
    return out.getvalue()


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json_text(value)


def _table(events: list[LoggedEvent]) -> TextTable:
    table = TextTable()
    for name in ("at (UTC)", "by", "what", "change"):
        table.add_column(name, no_wrap=name == "at (UTC)")
    for event in events:
        phase = "" if event.phase == "done" else f" ({event.phase})"
        table.add_row(
            f"{event.at:%Y-%m-%d %H:%M:%S}",
            event.actor if event.actor_kind == "operator" else f"key {event.actor}",
            f"{event.subject} {event.verb}{phase} {event.subject_id or ''}".rstrip(),
            describe_change(event.before or {}, event.after or {}),
        )
    return table


def describe_change(before: dict[str, Any], after: dict[str, Any]) -> str:
    """What differs, in a line. Empty values of a new thing are left out; `--json` has everything."""
    changes = []
    for name in [*before, *(name for name in after if name not in before)]:
        old, new = before.get(name), after.get(name)
        if name not in after:
            changes.append(f"{name} was {json_text(old)}")
        elif name not in before:
            changes += [] if new in (None, [], {}) else [f"{name} {json_text(new)}"]
        elif old != new:
            changes.append(f"{name} {json_text(old)} → {json_text(new)}")
    return ", ".join(changes)
