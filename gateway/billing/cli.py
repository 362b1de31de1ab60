"""`gateway billing …`."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from gateway.billing import commands as billing_command
from gateway.billing import status_commands, unbilled_commands
from gateway.cli.command import run, settings
from gateway.cli.console import Console
from gateway.kit.errors import OptionError
from gateway.kit.instants import parse_period

app = typer.Typer(no_args_is_help=True, help="Stripe meter events that wait for a person (docs/billing.md).")


@app.command()
def held(as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """Lists the meter events that Stripe refused, and those that it may or may not have counted."""
    run(billing_command.list_held(settings(), Console(), as_json=as_json))


@app.command()
def again(identifier: str) -> None:
    """Queues an event again under a new identifier: only for one that Stripe has not counted."""
    run(billing_command.requeue(settings(), Console(), identifier=identifier, now=datetime.now(UTC)))


@app.command()
def delivered(identifier: str) -> None:
    """Marks an unknown event as sent: for one that Stripe's meter summaries contain."""
    run(billing_command.mark_delivered(settings(), Console(), identifier=identifier, now=datetime.now(UTC)))


@app.command()
def status(
    month: Annotated[
        str | None, typer.Option(help="Only what was booked in this month: 2026-10, last-month. Default: everything.")
    ] = None,
    by: Annotated[
        list[str] | None, typer.Option(metavar="WHAT", help="Also by customer; the margin by plan (reads every row).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Shows the bridge from our cost to the money at Stripe; exits 1 where an amount is unexplained."""
    if unknown := set(by or ()) - {"customer", "plan"}:
        raise OptionError(f"--by: {', '.join(sorted(unknown))}: it is customer or plan")
    span = None if month is None else parse_period(month, "--month", datetime.now(UTC))
    shown = status_commands.show_status(settings(), Console(), span, by=frozenset(by or ()), as_json=as_json)
    raise typer.Exit(run(shown))


@app.command()
def unbilled(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Lists users with amounts that nobody pays, and how old these are."""
    if as_json and as_csv:
        raise OptionError("--json and --csv: give one")
    now = datetime.now(UTC)
    run(unbilled_commands.show_unbilled(settings(), Console(), now=now, as_json=as_json, as_csv=as_csv))
