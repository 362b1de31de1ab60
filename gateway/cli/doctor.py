"""`gateway doctor`."""

from datetime import UTC, datetime

import typer
from rich.console import Console

from gateway.cli.base import run, settings
from gateway.commands import doctor as doctor_command

app = typer.Typer()


@app.command()
def doctor() -> None:
    """Asks every dependency; says what is wrong and how to mend it. Exits 1 if a call could not be metered."""
    raise typer.Exit(run(doctor_command.doctor(settings(), Console(), today=datetime.now(UTC).date())))
