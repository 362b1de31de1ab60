"""`gateway report …`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.command import run, settings
from gateway.cli.console import Console
from gateway.kit.errors import OptionError
from gateway.reports import commands as report_command
from gateway.reports.queries import UsageOptions

app = typer.Typer(no_args_is_help=True, help="Usage for finance (docs/reports.md).")

_BY = (
    "month, week, day, hour, user, key, meeting, customer, cost-centre, model, endpoint, tier, evidence; several with "
    "commas."
)
_AT = "2026-11, 2026-11-23, 2026-11-23T10:00:00Z, today, yesterday, this-month or last-month."
_PERIOD = "A whole one instead: 2026-11, 2026-11-23, today, yesterday, this-month or last-month."

Since = Annotated[str | None, typer.Option("--from", help=f"Start of the range, UTC: {_AT}")]
Until = Annotated[str | None, typer.Option("--until", "--to", help="End of the range (exclusive); as --from.")]
During = Annotated[str | None, typer.Option(help=_PERIOD)]
User = Annotated[str | None, typer.Option(help="Only of this user: e-mail address or UUID.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Csv = Annotated[bool, typer.Option("--csv", help="Print CSV.")]
Output = Annotated[Path | None, typer.Option(help="Write to this file, atomically.")]


@app.command()
def usage(
    by: Annotated[str, typer.Option(help=_BY)] = "day",
    since: Since = None,
    until: Until = None,
    during: During = None,
    user: User = None,
    key: Annotated[str | None, typer.Option(help="Only of this key: Unkey's id or ours.")] = None,
    meeting: Annotated[str | None, typer.Option(help="Only of this meeting: its UUID.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Only of this model and its dated snapshots; `gpt-5!`: that very name.")
    ] = None,
    endpoint: Annotated[str | None, typer.Option(help="Only of this endpoint: chat, responses, embeddings, …")] = None,
    customer: Annotated[
        str | None, typer.Option(help="Only of this customer: our id, Stripe's (cus_…) or its name.")
    ] = None,
    tier: Annotated[str | None, typer.Option(help="Only of this service tier: default, flex, priority, …")] = None,
    evidence: Annotated[
        str | None,
        typer.Option(help="Only of this evidence: reported, drained, estimated, unpriced, void, adjustment."),
    ] = None,
    as_json: Json = False,
    as_csv: Csv = False,
    totals: Annotated[bool, typer.Option("--totals", help="Add a line of totals to CSV.")] = False,
    output: Output = None,
) -> None:
    """Calls, tokens, cost and billed amounts."""
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
            wanted=UsageOptions(user, key, meeting, model, endpoint, customer, tier, evidence),
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
    """The cost of each meeting, also per participant-minute, and of usage without a meeting."""
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


@app.command()
def accruals(
    during: Annotated[str, typer.Option(help="The month, UTC: 2026-11, this-month or last-month.")] = "last-month",
    as_json: Json = False,
    as_csv: Csv = False,
    output: Output = None,
) -> None:
    """What was earned in a month and is on no invoice yet, and what was paid in advance and is not used."""
    if as_json and as_csv:
        raise OptionError("--json and --csv: give one")
    run(
        report_command.accruals(
            settings(),
            Console(),
            now=datetime.now(UTC),
            during=during,
            form="json" if as_json else "csv" if as_csv else "table",
            output=output,
        )
    )
