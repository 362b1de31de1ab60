"""`gateway meetings …`."""

from typing import Annotated

import typer

from gateway.cli.command import run, settings
from gateway.cli.console import Console
from gateway.meetings import commands as meetings_command

app = typer.Typer(no_args_is_help=True, help="Daily.co meetings as the gateway knows them (docs/meetings.md).")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_meetings(
    unassigned: Annotated[bool, typer.Option("--unassigned", help="Only meetings without an owner.")] = False,
    room: Annotated[str | None, typer.Option(help="Only meetings in this room.")] = None,
    limit: Annotated[int, typer.Option(help="Maximum number of meetings listed.")] = 50,
    as_json: Json = False,
) -> None:
    """Lists meetings, the latest first, and says how many events wait or have failed."""
    run(
        meetings_command.list_meetings(
            settings(), Console(), unassigned=unassigned, room=room, limit=limit, as_json=as_json
        )
    )


@app.command()
def assign(
    meeting: Annotated[str, typer.Argument(metavar="MEETING", help="Our id of the meeting, a UUID.")],
    user: Annotated[str, typer.Option(help="E-mail address or UUID of its owner.")],
) -> None:
    """Sets the owner of a meeting for good; refused once it has usage of another user."""
    run(meetings_command.assign(settings(), Console(), meeting=meeting, user=user))


@app.command()
def retry() -> None:
    """Applies failed events again, after their cause is fixed."""
    run(meetings_command.retry(settings(), Console()))
