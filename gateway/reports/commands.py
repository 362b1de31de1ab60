"""`gateway report …`: asks for a report and has it written as a table, JSON or CSV. Sums nothing itself."""

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from gateway.accounts.store import Accounts
from gateway.cli.console import Console
from gateway.config.settings import Settings
from gateway.kit.errors import OptionError
from gateway.kit.ids import is_uuid
from gateway.reports.as_csv import usage_csv
from gateway.reports.as_table import usage_table
from gateway.reports.meetings import MeetingReport, meeting_report
from gateway.reports.meetings_output import meeting_csv, meeting_table
from gateway.reports.output import Form, Rendering, write
from gateway.reports.store import Reports, UsageFilter
from gateway.reports.usage import UsageReport, usage_report
from gateway.stores.one_connection import database
from gateway.stores.postgres import Pool


class UsageOptions(NamedTuple):
    """What usage is asked for, as people name it; None is anything."""

    user: str | None = None
    """E-mail address or UUID."""
    key: str | None = None
    """Our id or Unkey's."""
    meeting: str | None = None
    """UUID."""
    model: str | None = None
    endpoint: str | None = None


ANYTHING: Final = UsageOptions()


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
    """Prints usage in [since, until), or `during` a period, grouped by `by` (reports/usage.py), and returns it.

    With `output` it goes to that file instead, whole or not at all. `totals` adds them to CSV; the others always have
    them. Raises OptionError for a wrong option, ConfigError when DATABASE_URL is missing, DependencyDown.
    """
    async with database(settings, "the usage report reads the ledger in PostgreSQL") as pool:
        of = await _filter(pool, wanted)
        report = await usage_report(Reports(pool), by=by, now=now, since=since, until=until, during=during, of=of)
    write(
        console,
        form,
        output,
        Rendering(
            f"usage {report.span()}",
            len(report.rows),
            report.to_json,
            partial(usage_csv, report, totals=totals),
            partial(usage_table, report),
        ),
    )
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
) -> MeetingReport:
    """Prints what meetings have cost, as `usage` prints usage, and returns it. Raises the same."""
    async with database(settings, "the report of meetings reads the ledger in PostgreSQL") as pool:
        of = await _filter(pool, UsageOptions(user=user))
        report = await meeting_report(
            Reports(pool), now=now, since=since, until=until, during=during, user_id=of.user_id
        )
    write(
        console,
        form,
        output,
        Rendering(
            f"meetings {report.usage.span()}",
            len(report.rows),
            report.to_json,
            partial(meeting_csv, report),
            partial(meeting_table, report),
        ),
    )
    return report


async def _filter(pool: Pool, wanted: UsageOptions) -> UsageFilter:
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
