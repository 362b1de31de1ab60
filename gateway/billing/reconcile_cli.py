"""`gateway reconcile …`."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from gateway.billing.reconcile import output
from gateway.billing.reconcile import run as reconciling
from gateway.cli.command import run, settings
from gateway.cli.console import Console
from gateway.kit.errors import OptionError
from gateway.kit.instants import parse_period

app = typer.Typer(no_args_is_help=True, help="Our books against those of others.")


@app.callback()
def _group() -> None:
    """Our books against those of others."""


@app.command()
def stripe(
    month: Annotated[str, typer.Option(help="The month, UTC: 2026-10, this-month or last-month.")] = "last-month",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compares a month with Stripe, customer by customer: ledger, windows, meter events, summaries, invoice lines.

    Says why two steps differ. Exits 1 when something is unexplained, or Stripe has more than was delivered.
    """
    now = datetime.now(UTC)
    period = parse_period(month, "--month", now)
    if (period.since.day, (period.until - period.since).days >= 28) != (1, True):
        raise OptionError(f"--month: {month!r} is not a month (2026-10, this-month, last-month)")
    result = run(reconciling.reconcile(settings(), period, now))
    console = Console()
    if as_json:
        console.print_json(output.to_json(result))
    else:
        output.show(console, result)
    if result.fails:
        raise SystemExit(1)
