"""`gateway daily …`."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from gateway.cli.command import run, settings
from gateway.cli.console import Console
from gateway.kit.instants import parse_bound
from gateway.meetings import daily_commands as daily_command

app = typer.Typer(
    no_args_is_help=True, help="Daily.co: our webhook, its past meetings, its recordings (docs/meetings.md)."
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_AT = "2026-11, 2026-11-23, 2026-11-23T10:00:00Z, today, yesterday, this-month or last-month."


@app.command()
def register(
    url: Annotated[str, typer.Option(help="Where Daily.co reaches this gateway: https://…/webhooks/daily.")],
    as_json: Json = False,
) -> None:
    """Creates or fixes our webhook at Daily.co (events, retries, secret) and activates it. Others are not touched."""
    run(daily_command.register(settings(), Console(), url=url, as_json=as_json))


@app.command()
def status(
    url: Annotated[
        str | None, typer.Option(help="The webhook with this URL. Default: one ending in /webhooks/daily.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Shows the state of our webhook and of the inbox. Exits 1 when something is wrong."""
    if run(daily_command.status(settings(), Console(), url=url, as_json=as_json)).problems:
        raise SystemExit(1)


@app.command()
def backfill(
    since: Annotated[str, typer.Option("--from", help=f"Start of the range, UTC: {_AT}")],
    until: Annotated[str | None, typer.Option("--to", help="End of the range (exclusive). Default: now.")] = None,
    room: Annotated[str | None, typer.Option(help="Only meetings in this room.")] = None,
    again: Annotated[bool, typer.Option("--restart", help="Start over instead of resuming.")] = False,
    as_json: Json = False,
) -> None:
    """Asks Daily.co for past meetings, and fills in what webhooks missed. Can be interrupted and resumed."""
    now = datetime.now(UTC)
    run(
        daily_command.backfill(
            settings(),
            Console(),
            since=parse_bound(since, "--from", now),
            until=None if until is None else parse_bound(until, "--to", now),
            now=now,
            room=room,
            again=again,
            as_json=as_json,
        )
    )


@app.command()
def link(
    meeting: Annotated[str, typer.Argument(metavar="MEETING", help="Our id of the meeting, a UUID.")],
    transcript: Annotated[bool, typer.Option("--transcript", help="The transcript, not the recording.")] = False,
    as_json: Json = False,
) -> None:
    """Prints a temporary link to a meeting's recording or transcript."""
    run(daily_command.link(settings(), Console(), meeting=meeting, transcript=transcript, as_json=as_json))
