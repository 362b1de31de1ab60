"""`gateway retention`: shows which personal data are due, and deletes them with `--apply`."""

from datetime import datetime
from typing import Any, Final

from gateway.cli.command import note
from gateway.cli.console import Console, TextTable
from gateway.config.settings import RetentionSettings, Settings
from gateway.kit.errors import OptionError
from gateway.kit.instants import rfc3339
from gateway.retention.retention import due, limits_of, take
from gateway.retention.store import Kind, Retention
from gateway.stores.one_connection import database

_WHAT: Final[dict[Kind, str]] = {
    "participants": "names and addresses of participants",
    "inbox": "bodies of webhooks",
    "rooms": "what is sealed in rooms",
}


async def retention(
    settings: Settings,
    console: Console,
    *,
    now: datetime,
    wanted: RetentionSettings,
    apply: bool,
    as_json: bool = False,
) -> dict[str, Any]:
    """Prints what is due after so many days, or takes it away. `wanted` goes before the settings. Raises OptionError
    when neither names anything, ConfigError, DependencyDown.
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

        def progress(kind: Kind, count: int) -> None:
            if not as_json:
                note(f"{_WHAT[kind]}: {count:,}")

        taken = await take(store, limits, now, progress) if apply else {}
    plain: dict[str, Any] = {
        "applied": apply,
        "kinds": {
            kind: {
                "after_days": days,
                "due": sum(month.many for month in months[kind]),
                "taken": taken.get(kind, 0),
                "months": [
                    month._asdict() | {"oldest": rfc3339(month.oldest), "newest": rfc3339(month.newest)}
                    for month in months[kind]
                ],
            }
            for kind, days in limits.items()
        },
    }
    if as_json:
        console.print_json(plain)
        return plain
    _show(console, plain)
    return plain


def _show(console: Console, plain: dict[str, Any]) -> None:
    table = TextTable()
    for name in ("what", "month", "oldest", "newest"):
        table.add_column(name)
    table.add_column("how many", right=True)
    for kind, one in plain["kinds"].items():
        table.add_row(f"{_WHAT[kind]}, over for {one['after_days']:g} days", "", "", "", f"{one['due']:,}")
        for month in one["months"]:
            table.add_row("", month["month"], month["oldest"][:10], month["newest"][:10], f"{month['many']:,}")
    console.print_table(table)
    taken = sum(one["taken"] for one in plain["kinds"].values())
    said = (
        f"Taken away for good: {taken:,}."
        if plain["applied"]
        else "Nothing was changed; --apply takes it away for good."
    )
    console.say(said)
