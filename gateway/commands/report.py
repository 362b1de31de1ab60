"""`gateway report usage`: asks for the usage report and writes it as a table, JSON or CSV. Sums nothing itself."""

import io
import json
import os
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, NamedTuple

from rich.console import Console

from gateway.commands.database import database
from gateway.commands.report_csv import usage_csv
from gateway.commands.report_table import usage_table
from gateway.core.config import Settings
from gateway.core.errors import OptionError
from gateway.core.ids import is_uuid
from gateway.edges.accounts import Accounts
from gateway.edges.ledger import Pool
from gateway.edges.reports import Reports, UsageFilter
from gateway.flows.reports import UsageReport, usage_report

Form = Literal["table", "json", "csv"]
FILE_WIDTH: Final = 160
"""Columns of a table that goes to a file."""


class Wanted(NamedTuple):
    """What usage is asked for, as people name it; None is anything."""

    user: str | None = None
    """E-mail address or UUID."""
    key: str | None = None
    """Our id or Unkey's."""
    meeting: str | None = None
    """UUID."""
    model: str | None = None
    endpoint: str | None = None


ANYTHING: Final = Wanted()


async def usage(
    settings: Settings,
    console: Console,
    *,
    now: datetime,
    by: Sequence[str] = ("day",),
    since: str | None = None,
    until: str | None = None,
    during: str | None = None,
    wanted: Wanted = ANYTHING,
    form: Form = "table",
    totals: bool = False,
    output: Path | None = None,
) -> UsageReport:
    """Prints usage in [since, until), or `during` a period, grouped by `by` (flows/reports.py), and returns it.

    With `output` it goes to that file instead, whole or not at all. `totals` adds them to CSV; the others always have
    them. Raises OptionError for a wrong option, ConfigError when DATABASE_URL is missing, DependencyDown.
    """
    async with database(settings, "the usage report reads the ledger in PostgreSQL") as pool:
        of = await _filter(pool, wanted)
        report = await usage_report(Reports(pool), by=by, now=now, since=since, until=until, during=during, of=of)
    if output is not None:
        write_whole(output, rendered(report, form, totals=totals))
        lines = f"{len(report.rows):,} {'line' if len(report.rows) == 1 else 'lines'}"
        console.print(f"{lines} of usage {report.span()} in {output}", markup=False, highlight=False, soft_wrap=True)
    elif form == "table":
        console.print(usage_table(report, console.width))
    else:
        # Not through the console, which wraps and colours.
        console.file.write(rendered(report, form, totals=totals))
        if form == "csv":
            # CSV has no place for the range; standard output may be going into a file.
            sys.stderr.write(f"usage {report.span()}\n")
    return report


def rendered(report: UsageReport, form: Form, *, totals: bool) -> str:
    """The whole report as text."""
    if form == "csv":
        return usage_csv(report, totals=totals)
    if form == "json":
        return json.dumps(report.to_json(), indent=2, ensure_ascii=False) + "\n"
    out = io.StringIO()
    Console(file=out, width=FILE_WIDTH, color_system=None).print(usage_table(report, FILE_WIDTH))
    return out.getvalue()


def write_whole(path: Path, text: str) -> None:
    """Replaces the file at `path`, so that whoever reads it sees the old content or all of the new, never a part.

    Raises OptionError when it cannot be written; the old content is then still there.
    """
    try:
        target = path.resolve()
        if target.exists() and not target.is_file():
            raise OptionError(f"--output: {path} is not a regular file")
        beside = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            with beside.open("x", encoding="utf-8", newline="") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise OptionError(f"--output: {path} cannot be written: {error.strerror}") from error


async def _filter(pool: Pool, wanted: Wanted) -> UsageFilter:
    """The filter by ids. Raises OptionError naming the option whose user, key or meeting there is not."""
    for name, value in wanted._asdict().items():
        if value is not None and not (value and value.isprintable()):
            raise OptionError(f"--{name}: printable text on one line")
    accounts = Accounts(pool)
    user = None if wanted.user is None else await accounts.find(wanted.user)
    if wanted.user is not None and user is None:
        raise OptionError(f"--user: there is no user {wanted.user}; `gateway users list --all` has all of them")
    key = None if wanted.key is None else await accounts.key(wanted.key)
    if wanted.key is not None and key is None:
        # The text is not repeated: it may be a secret that was taken for an id.
        raise OptionError("--key: no key with this id is linked here; `gateway keys list --all` has all of them")
    meeting = wanted.meeting
    if meeting is not None and (not is_uuid(meeting) or await Reports(pool).room_of(meeting) is None):
        raise OptionError(f"--meeting: there is no meeting with the id {meeting} (a UUID, as X-Meeting-Id takes it)")
    return UsageFilter(
        user_id=None if user is None else user.id,
        key_id=None if key is None else key.id,
        meeting_id=None if meeting is None else meeting.lower(),
        model=wanted.model,
        endpoint=wanted.endpoint,
    )
