"""`gateway retention`."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from gateway.cli.command import run, settings
from gateway.cli.console import Console
from gateway.config.settings import RetentionSettings
from gateway.retention import commands as retention_command

app = typer.Typer()

_Days = Annotated[
    float | None, typer.Option(min=0, metavar="DAYS", help="Default: the setting; without either, data are kept.")
]


@app.command()
def retention(
    participants_after: _Days = None,
    inbox_after: _Days = None,
    rooms_after: _Days = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Delete the data for good; otherwise nothing is changed.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Shows or deletes personal data that are due: names of participants, webhook bodies, sealed room data."""
    run(
        retention_command.retention(
            settings(),
            Console(),
            now=datetime.now(UTC),
            wanted=RetentionSettings(
                participants_days=participants_after, inbox_days=inbox_after, rooms_days=rooms_after
            ),
            apply=apply,
            as_json=as_json,
        )
    )
