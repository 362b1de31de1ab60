"""`gateway log`."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from gateway.cli.command import run, settings
from gateway.cli.console import Console
from gateway.kit.instants import parse_bound
from gateway.trail import commands as log_command

app = typer.Typer()

_AT = "2026-11, 2026-11-23, 2026-11-23T10:00:00Z, today, yesterday, this-month or last-month"


@app.command()
def log(
    since: Annotated[str | None, typer.Option(help=f"Only since then, UTC: {_AT}.")] = None,
    by: Annotated[str | None, typer.Option(metavar="NAME", help="Only by this operator, or with this key.")] = None,
    what: Annotated[
        str | None, typer.Option(help="Only about this: key, revoke, 'key revoke', or the id of one thing.")
    ] = None,
    limit: Annotated[int, typer.Option(help="Maximum number of events listed, the newest.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Lists who has changed what by hand, and which keys have read what is sealed in rooms."""
    run(
        log_command.show_log(
            settings(),
            Console(),
            since=None if since is None else parse_bound(since, "--since", datetime.now(UTC)),
            by=by,
            what=what,
            limit=limit,
            as_json=as_json,
            as_csv=as_csv,
        )
    )
