"""`gateway billing …`."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from gateway.billing import commands as billing_command
from gateway.cli.command import run, settings
from gateway.cli.console import Console

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
