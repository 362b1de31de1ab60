"""What `gateway report` shows, or writes to a file."""

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

from gateway.cli.command import note
from gateway.cli.console import Console
from gateway.config.settings import Settings
from gateway.reports.accruals import query_accruals
from gateway.reports.accruals_output import accruals_csv, accruals_table
from gateway.reports.as_csv import usage_csv
from gateway.reports.as_table import usage_table
from gateway.reports.meetings_output import meeting_csv, meeting_table
from gateway.reports.output import Form, Rendering, write
from gateway.reports.queries import ANYTHING, UsageOptions, query_meetings, query_usage
from gateway.reports.usage import UsageReport


async def usage(
    settings: Settings,
    console: Console,
    *,
    now: datetime,
    by: Sequence[str] = ("day",),
    since: str | None = None,
    until: str | None = None,
    during: str | None = None,
    wanted: UsageOptions = ANYTHING,
    form: Form = "table",
    totals: bool = False,
    output: Path | None = None,
) -> UsageReport:
    """Usage, on the terminal or whole in the file `output`; returns the report.

    `totals` adds them to CSV; the other forms always have them.
    """
    report = await query_usage(
        settings, say=note, now=now, by=by, since=since, until=until, during=during, wanted=wanted
    )
    rendering = Rendering(
        f"usage {report.span()}",
        len(report.rows),
        report.to_json,
        partial(usage_csv, report, totals=totals),
        partial(usage_table, report),
    )
    write(console, form, output, rendering)
    return report


async def meetings(
    settings: Settings,
    console: Console,
    *,
    now: datetime,
    since: str | None = None,
    until: str | None = None,
    during: str | None = None,
    user: str | None = None,
    form: Form = "table",
    output: Path | None = None,
) -> None:
    """What meetings have cost, as `usage` shows usage."""
    report = await query_meetings(settings, say=note, now=now, since=since, until=until, during=during, user=user)
    rendering = Rendering(
        f"meetings {report.usage.span()}",
        len(report.rows),
        report.to_json,
        partial(meeting_csv, report),
        partial(meeting_table, report),
    )
    write(console, form, output, rendering)


async def accruals(
    settings: Settings, console: Console, *, now: datetime, during: str, form: Form, output: Path | None
) -> None:
    """What is earned and not invoiced, and the other way round."""
    report = await query_accruals(settings, during=during, now=now, say=note)
    rendering = Rendering(
        f"accruals of {report.period.since:%Y-%m} (UTC)",
        len(report.rows),
        report.to_json,
        partial(accruals_csv, report),
        partial(accruals_table, report),
    )
    write(console, form, output, rendering)
