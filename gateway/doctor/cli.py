"""`gateway doctor`."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from gateway.cli.command import run, settings
from gateway.cli.console import Console
from gateway.doctor import commands as doctor_command

app = typer.Typer()


@app.command()
def doctor(
    verbose: Annotated[bool, typer.Option("--verbose", help="Every undecided price, by model.")] = False,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Checks every dependency; says what is wrong and how to fix it. Exits 1 if a call could not be metered."""
    today = datetime.now(UTC).date()
    raise typer.Exit(run(doctor_command.doctor(settings(), Console(), today=today, verbose=verbose, as_json=as_json)))
