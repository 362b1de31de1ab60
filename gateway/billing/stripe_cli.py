"""`gateway stripe …`."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from gateway.billing import stripe_commands
from gateway.cli.command import run, settings
from gateway.cli.console import Console
from gateway.kit.instants import parse_bound

app = typer.Typer(
    no_args_is_help=True, help="Stripe: what has to be there, what it has, and what an invoice is made of."
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
SINCE_DAYS = 62


@app.command()
def setup(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what is missing.")] = False,
    webhook_url: Annotated[
        str | None,
        typer.Option(help="Make the webhooks too: https://HOST/webhooks/stripe, as Stripe reaches this gateway."),
    ] = None,
    secrets_file: Annotated[
        Path | None,
        typer.Option(help="Where new signing secrets go, for STRIPE_WEBHOOK_SECRET. Default: the terminal, once."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Makes the meter, the product and the price at Stripe where they are missing, and says what is left to do."""
    asked = stripe_commands.SetupAsked(dry_run, webhook_url, secrets_file, as_json)
    console = Console()
    run(stripe_commands.set_up(settings(), console, asked, is_terminal=console.is_terminal))


@app.command()
def sync(
    since: Annotated[
        str | None, typer.Option(help="Invoices made since then: 2026-10, 2026-10-01 … Default: 62 days ago.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Reads subscriptions, invoices and credit grants from Stripe: at first, and after webhooks were lost."""
    now = datetime.now(UTC)
    at = now - timedelta(days=SINCE_DAYS) if since is None else parse_bound(since, "--since", now)
    run(stripe_commands.sync(settings(), Console(), since=at, as_json=as_json))


@app.command()
def explain(
    name: Annotated[str, typer.Argument(help="An invoice, a line of one, a meter event, a row, or an id of OpenAI's.")],
    as_csv: Annotated[bool, typer.Option("--csv", help="Every call as a line of CSV, for a dispute.")] = False,
    as_json: Json = False,
) -> None:
    """Traces an invoice to its calls, or a call to its invoice. Exits 1 when a sum is not explained."""
    if not run(stripe_commands.explain(settings(), Console(), name=name, as_csv=as_csv, as_json=as_json)):
        raise SystemExit(1)
