"""`gateway journal …`."""

from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.command import run, settings
from gateway.cli.console import Console
from gateway.ledger import commands
from gateway.ledger.adopt import find_journal

app = typer.Typer(no_args_is_help=True, help="The journal on disk: its content, and adopting a dead host's.")


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
