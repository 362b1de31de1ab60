"""`gateway hosts`."""

from typing import Annotated

import typer

from gateway.cli.command import run, settings
from gateway.cli.console import Console
from gateway.hosts import commands

app = typer.Typer()


@app.command()
def hosts(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Lists the hosts that take calls, when each was last seen, and which are lost."""
    run(commands.list_hosts(settings(), Console(), as_json=as_json))
