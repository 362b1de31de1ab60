"""`gateway quarantine …`."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from gateway.cli.command import run, settings
from gateway.cli.console import Console
from gateway.quarantine import commands as quarantine_command

app = typer.Typer(no_args_is_help=True, help="Usage that could not become a ledger row (docs/operations.md).")

Id = Annotated[int, typer.Argument(metavar="ID", min=1, max=2**63 - 1, help="From `gateway quarantine list`.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
By = Annotated[str | None, typer.Option(help="Who does this. Default: the login on this host.")]


@app.command("list")
def list_entries(
    everything: Annotated[bool, typer.Option("--all", help="Include resolved entries.")] = False,
    as_json: Json = False,
) -> None:
    """Lists what waits for a person, and why."""
    run(quarantine_command.list_entries(settings(), Console(), everything=everything, as_json=as_json))


@app.command()
def show(entry: Id, as_json: Json = False) -> None:
    """Shows one entry: the full reason, and its bytes."""
    run(quarantine_command.show(settings(), Console(), entry_id=entry, as_json=as_json))


@app.command()
def retry(
    entries: Annotated[
        list[int] | None, typer.Argument(metavar="ID", min=1, max=2**63 - 1, help="From `gateway quarantine list`.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All unresolved entries.")] = False,
    by: By = None,
) -> None:
    """Turns entries into rows once their cause is fixed. Exits 1 when one is still refused."""
    done = quarantine_command.retry_entries(
        settings(), Console(), entry_ids=entries or [], everything=everything, by=by, now=datetime.now(UTC)
    )
    if not run(done):
        raise typer.Exit(1)


@app.command()
def resolve(
    entry: Id, reason: Annotated[str, typer.Option(help="Why it will not become a row.")], by: By = None
) -> None:
    """Closes an entry that will not become a row, with the reason."""
    run(quarantine_command.resolve(settings(), Console(), entry_id=entry, reason=reason, by=by))
