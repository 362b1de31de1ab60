"""`gateway close`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.command import run, settings
from gateway.cli.console import Console
from gateway.cli.default_command import DefaultCommandGroup
from gateway.close import commands as close_command
from gateway.close.close import CloseOptions
from gateway.close.findings import parse_accepted
from gateway.kit.errors import OptionError
from gateway.kit.instants import Period, parse_period


class _CloseGroup(DefaultCommandGroup):
    default = "month"


app = typer.Typer(
    cls=_CloseGroup,
    no_args_is_help=True,
    help="Close a month, and check the pack of a closed one (docs/close.md). `gateway close 2026-10` closes it.",
)

_Month = Annotated[str, typer.Argument(metavar="MONTH", help="2026-10, or last-month.")]


@app.command()
def month(
    month: _Month,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what stands against it.")] = False,
    accept: Annotated[
        list[str] | None, typer.Option(metavar="ITEM=REASON", help="Close all the same; the reason goes into the pack.")
    ] = None,
    output: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where the pack is written.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Closes a month, what `gateway close MONTH` does; exits 1 and lists why where something stands against it."""
    wanted = CloseOptions(_month(month), parse_accepted(accept or []), dry_run, output)
    raise typer.Exit(
        run(close_command.close_month(settings(), Console(), wanted, now=datetime.now(UTC), as_json=as_json))
    )


@app.command()
def reopen(month: _Month, why: Annotated[str, typer.Option(help="Why the month is closed once more.")]) -> None:
    """Makes a new version of a closed month, to be closed again; the old version and its pack stay."""
    run(close_command.reopen_month(settings(), Console(), _month(month), why))


@app.command()
def verify(
    pack: Annotated[Path, typer.Argument(metavar="PACK", help="The folder of a pack.")],
    key: Annotated[str | None, typer.Option(help="The public key that must have signed it, base64.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Checks a pack from its files alone, without a database; exits 1 where anything is wrong."""
    raise typer.Exit(close_command.verify_pack(Console(), pack, key, as_json=as_json))


def _month(text: str) -> Period:
    """A whole month. Raises OptionError."""
    span = parse_period(text, "MONTH", datetime.now(UTC))
    if span.since.day != 1 or (span.until - span.since).days < 28:
        raise OptionError(f"MONTH: {text!r} is a day; give a month, as 2026-10")
    return span
