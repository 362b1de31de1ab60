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
    for name in ("at (UTC)", "by", "what", "id", "", "before", "after"):
        table.add_column(name, no_wrap=name == "at (UTC)")
    for event in events:
        table.add_row(
            f"{event.at:%Y-%m-%d %H:%M:%S}",
            event.actor if event.actor_kind == "operator" else f"key {event.actor}",
            f"{event.subject} {event.verb}",
            event.subject_id or "",
            "" if event.phase == "done" else event.phase,
            _values(event.before),
            _values(event.after),
        )
    return table


def _values(values: dict[str, Any] | None) -> str:
    return ", ".join(f"{name}={json_text(value)}" for name, value in (values or {}).items())
