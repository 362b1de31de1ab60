"""`gateway report …`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.command import run, settings
from gateway.cli.console import Console
from gateway.kit.errors import OptionError
from gateway.reports import commands as report_command

app = typer.Typer(no_args_is_help=True, help="Usage for finance (docs/reports.md).")

_BY = "month, day, hour, user, key, meeting, model, endpoint, tier; several with commas."
_AT = "2026-11, 2026-11-23, 2026-11-23T10:00:00Z, today, yesterday, this-month or last-month."
_PERIOD = "A whole one instead: 2026-11, 2026-11-23, today, yesterday, this-month or last-month."

Since = Annotated[str | None, typer.Option("--from", help=f"First instant, UTC: {_AT}")]
Until = Annotated[str | None, typer.Option("--until", "--to", help="First instant no longer in it; as --from.")]
During = Annotated[str | None, typer.Option(help=_PERIOD)]
User = Annotated[str | None, typer.Option(help="Only of this user: e-mail address or UUID.")]
Json = Annotated[bool, typer.Option("--json", help="For programs.")]
Csv = Annotated[bool, typer.Option("--csv", help="For spreadsheets and loaders.")]
Output = Annotated[Path | None, typer.Option(help="Writes to this file, whole or not at all.")]


@app.command()
def usage(
    by: Annotated[str, typer.Option(help=_BY)] = "day",
    since: Since = None,
    until: Until = None,
    during: During = None,
    user: User = None,
    key: Annotated[str | None, typer.Option(help="Only of this key: Unkey's id or ours.")] = None,
    meeting: Annotated[str | None, typer.Option(help="Only of this meeting: its UUID.")] = None,
    model: Annotated[str | None, typer.Option(help="Only of this model, exactly as in the ledger.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="Only of this endpoint: chat, responses, embeddings, …")] = None,
    as_json: Json = False,
    as_csv: Csv = False,
    totals: Annotated[bool, typer.Option("--totals", help="Ends CSV with a line of totals.")] = False,
    output: Output = None,
) -> None:
    """Calls, tokens, cost and what is billed."""
    if as_json and as_csv:
        raise OptionError("--json and --csv: give one")
    run(
        report_command.usage(
            settings(),
            Console(),
            now=datetime.now(UTC),
            by=[by],
            since=since,
            until=until,
            during=during,
            wanted=report_command.UsageOptions(user, key, meeting, model, endpoint),
            form="json" if as_json else "csv" if as_csv else "table",
            totals=totals,
            output=output,
        )
    )


@app.command()
def meetings(
    since: Since = None,
    until: Until = None,
    during: During = None,
    user: User = None,
    as_json: Json = False,
    as_csv: Csv = False,
    output: Output = None,
) -> None:
    """What each meeting has cost, per participant-minute too, and what belongs to none."""
    if as_json and as_csv:
        raise OptionError("--json and --csv: give one")
    run(
        report_command.meetings(
            settings(),
            Console(),
            now=datetime.now(UTC),
            since=since,
            until=until,
            during=during,
            user=user,
            form="json" if as_json else "csv" if as_csv else "table",
            output=output,
        )
    )
