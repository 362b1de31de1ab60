"""`gateway report …`."""

from typing import Annotated

import typer
from rich.console import Console

from gateway.cli.base import run, settings
from gateway.commands import report as report_command

app = typer.Typer(no_args_is_help=True, help="Usage for finance.")


@app.command()
def usage(
    by: Annotated[str, typer.Option(help="month, day, user, key, model, endpoint, tier; several with commas.")] = "day",
    since: Annotated[str | None, typer.Option("--from", help="First instant, UTC.")] = None,
    until: Annotated[str | None, typer.Option("--until", "--to", help="First instant no longer in it, UTC.")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Calls, tokens, cost and what is billed."""
    dimensions = [name.strip() for name in by.split(",") if name.strip()]
    run(report_command.usage(settings(), Console(), by=dimensions, since=since, until=until, as_json=as_json))
