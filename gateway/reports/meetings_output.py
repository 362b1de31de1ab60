"""What meetings have cost, as a table for people and as CSV. Sums nothing itself."""

import csv
import io
from datetime import datetime
from typing import Final

from gateway.cli.console import TextTable, cell
from gateway.cli.csv_text import text_field
from gateway.reports.meetings import MeetingReport
from gateway.reports.store import UsageRow
from gateway.reports.usage import money_text

_ID_SHOWN: Final = 8
_FIELDS: Final = (
    "meeting_id",
    "room_name",
    "email",
    "status",
    "started_at",
    "ended_at",
    "duration_seconds",
    "participants",
    "participant_minutes",
    "calls",
    "total_tokens",
    "cost_usd",
    "billed_usd",
    "cost_usd_per_participant_minute",
)
_TEXTS: Final = ("room_name", "email")


def meeting_table(report: MeetingReport, width: int) -> TextTable:
    """Meetings, the dearest first; below them what belongs to none, and its share of the cost."""
    wide = width >= 130
    other = report.unattributed
    none = f"{other.calls:,} calls, {_amount(other, 'cost_usd')} USD" if other is not None else "nothing"
    table = TextTable(
        title=f"Meetings {report.usage.span()}, USD",
        caption=f"Without a meeting: {none} ({report.unattributed_percent} % of the cost)",
        footer=True,
    )
    total = report.usage.totals
    table.add_column("meeting", footer="all calls")
    table.add_column("owner")
    table.add_column("started", no_wrap=True)
    for name in ("people", "person-min") if wide else ("person-min",):
        table.add_column(name, right=True, no_wrap=True)
    table.add_column("calls", footer=f"{total.calls:,}", right=True, no_wrap=True)
    table.add_column("cost", footer=_amount(total, "cost_usd"), right=True, no_wrap=True)
    if wide:
        table.add_column("billed", footer=_amount(total, "billed_usd"), right=True, no_wrap=True)
    table.add_column("per person-min", right=True, no_wrap=True)
    for row in report.rows:
        time, per_minute = row.time, row.per_minute
        table.add_row(
            cell(time.room_name, " ", (f"{time.id[:_ID_SHOWN]}…", "dim")),
            time.email or "(nobody)",
            _minute(time.started_at),
            *((str(time.participants),) if wide else ()),
            str(row.minutes),
            f"{row.calls:,}",
            row.cost_text or "–",
            *((row.billed_text or "–",) if wide else ()),
            "–" if per_minute is None else f"{per_minute:.9f}",
        )
    return table


def meeting_csv(report: MeetingReport) -> str:
    """One header line and one line per meeting (RFC 4180); usage without a meeting is the last, its names empty."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(_FIELDS)
    for row in report.rows:
        plain = row.to_json()
        writer.writerow([text_field(plain[name]) if name in _TEXTS else plain[name] for name in _FIELDS])
    if (other := report.unattributed) is not None:
        figures = {
            "calls": other.calls,
            "total_tokens": other.total_tokens,
            "cost_usd": money_text(other, "cost_usd"),
            "billed_usd": money_text(other, "billed_usd"),
        }
        writer.writerow([figures.get(name) for name in _FIELDS])
    return out.getvalue()


def _amount(row: UsageRow, name: str) -> str:
    return money_text(row, name) or "–"


def _minute(at: datetime | None) -> str:
    return "–" if at is None else f"{at:%Y-%m-%d %H:%M}"
