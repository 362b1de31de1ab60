"""`gateway corrections …`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.command import run, settings
from gateway.cli.console import Console
from gateway.corrections import commands as corrections_command
from gateway.corrections.adjust_cli import By, Json, valid_text
from gateway.corrections.approver import check_approver
from gateway.kit.errors import OptionError
from gateway.kit.ids import is_uuid
from gateway.kit.instants import parse_period
from gateway.reports.output import Form

app = typer.Typer(no_args_is_help=True, help="Corrections of ledger rows: made, or waiting (docs/corrections.md).")

Id = Annotated[str, typer.Argument(metavar="ID", help="From `gateway corrections waiting`.")]


@app.command("list")
def list_corrections(
    during: Annotated[
        str | None, typer.Option(help="When they were made: 2026-11, 2026-11-23, today, this-month, last-month.")
    ] = None,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Lists corrections: who, when, why, rows, amounts, and which month was corrected in which."""
    if as_json and as_csv:
        raise OptionError("--json and --csv: give one")
    since, until = (None, None) if during is None else parse_period(during, "--during", datetime.now(UTC))
    form: Form = "json" if as_json else "csv" if as_csv else "table"
    run(corrections_command.list_corrections(settings(), Console(), since=since, until=until, form=form))


@app.command()
def waiting(as_json: Json = False) -> None:
    """Lists corrections that another person has to approve."""
    run(corrections_command.list_waiting(settings(), Console(), as_json=as_json))


@app.command()
def approve(
    proposal: Id,
    key_file: Annotated[
        Path, typer.Option(help="A file with the secret of a key that has the permission corrections.approve.")
    ],
    by: By = None,
    as_json: Json = False,
) -> None:
    """Books a correction that somebody else has proposed."""
    proposal_id = _valid_id(proposal)
    here = settings()
    key_id = run(check_approver(here, key_file))
    run(
        corrections_command.approve(
            here, Console(), proposal_id=proposal_id, key_id=key_id, by=by, now=datetime.now(UTC), as_json=as_json
        )
    )


@app.command()
def reject(
    proposal: Id,
    why: Annotated[str, typer.Option(metavar="TEXT", help="The reason, for whoever asks later.")],
    by: By = None,
    as_json: Json = False,
) -> None:
    """Closes a proposed correction without booking it."""
    proposal_id, reason = _valid_id(proposal), valid_text("--why", why)
    run(corrections_command.reject(settings(), Console(), proposal_id=proposal_id, why=reason, by=by, as_json=as_json))


def _valid_id(text: str) -> str:
    if not is_uuid(text):
        raise OptionError(f"ID: {text!r} is not the id of a correction; `gateway corrections waiting` lists them")
    return text.lower()
