"""`gateway journal …`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.command import run, settings
from gateway.cli.console import Console
from gateway.ledger import commands
from gateway.ledger.adopt import find_journal
from gateway.ledger.resend import instants_between

app = typer.Typer(
    no_args_is_help=True, help="The journal on disk: its content, sending it again, and adopting a dead host's."
)


@app.command()
def inspect(
    folder: Annotated[Path | None, typer.Argument(help="A journal folder; this gateway's own by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Lists the calls in a journal folder, and which of them PostgreSQL lacks."""
    path = None if folder is None else find_journal(folder)
    run(commands.inspect(settings(), Console(), folder=path, as_json=as_json))


@app.command()
def adopt(
    folder: Annotated[Path, typer.Argument(help="The journal folder, or the data folder, of a host that is dead.")],
) -> None:
    """Copies a dead host's journal into this gateway's, whose keeper then ships and settles it."""
    commands.adopt(settings(), Console(), folder=find_journal(folder))


@app.command()
def resend(
    since: Annotated[
        str | None, typer.Option(help="Calls that began from here on: 2026-11-22, or with a time.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="End of the range (exclusive); as --since.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would be sent.")] = False,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Sends settled calls again that PostgreSQL does not have: after a failover or a restore that lost rows."""
    between = instants_between(since, until, datetime.now(UTC))
    run(commands.resend(settings(), Console(), between=between, dry_run=dry_run, as_json=as_json))
