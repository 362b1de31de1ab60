"""What `gateway hosts` shows."""

from datetime import datetime
from typing import Any

from gateway.cli.console import Console, TextTable
from gateway.cli.text import minute
from gateway.config.settings import Settings
from gateway.hosts.store import HostRow, Hosts
from gateway.kit.instants import rfc3339
from gateway.stores.one_connection import database


async def list_hosts(settings: Settings, console: Console, *, as_json: bool) -> None:
    """A line per host that is there, or was in the last 30 days."""
    async with database(settings, "`gateway hosts` lists") as pool:
        found = await Hosts(pool).every()
    if as_json:
        console.print_json([_to_json(host) for host in found])
        return
    table = TextTable("host", "id", "state", "last seen (UTC)", boxed=True)
    for name in ("calls open", "not in PostgreSQL", "settled by others"):
        table.add_column(name, right=True)
    for host in found:
        figures = (host.open_calls, host.unconfirmed_calls, host.swept_calls)
        table.add_row(host.name, host.id, host.state, minute(host.seen_at), *map(str, figures))
    console.print_table(table)
    console.say("Calls are counted as of when the host was last seen. What the states mean: docs/operations.md.")


def _to_json(host: HostRow) -> dict[str, Any]:
    return {name: rfc3339(value) if isinstance(value, datetime) else value for name, value in host._asdict().items()}
