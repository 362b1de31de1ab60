"""`gateway audit`."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from gateway.audit import commands as audit_command
from gateway.audit.stores import AuditOptions
from gateway.cli.command import run, settings
from gateway.cli.console import Console

app = typer.Typer()

_AT = "2026-11, 2026-11-23, 2026-11-23T10:00:00Z, today, yesterday, this-month or last-month"


@app.command()
def audit(
    since: Annotated[
        str | None, typer.Option("--from", help=f"Start of the range, UTC: {_AT}. Default: the last two full days.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", "--until", help="End of the range (exclusive). Default: now.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="The whole ledger.")] = False,
    grace: Annotated[float, typer.Option(min=0, help="Seconds a settled call has to arrive in the ledger.")] = 60,
    stripe: Annotated[bool, typer.Option("--stripe", help="Also compare with Stripe's meter summaries.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Checks the invariants of the ledger (docs/audit.md); exits 1 on any breach, else 3 if Stripe did not answer."""
    wanted = AuditOptions(since, until, everything, grace, stripe)
    done = audit_command.audit(settings(), Console(), now=datetime.now(UTC), wanted=wanted, as_json=as_json)
    raise typer.Exit(run(done))
