"""The usage report as a table for people: ids shortened beside the name that people know. Sums nothing itself.

Money is shown to the nano-dollar, never rounded.
"""

from typing import Final

from gateway.cli.console import Cell, TextTable, cell, lines
from gateway.reports.store import UsageRow
from gateway.reports.usage import UsageReport, money_text

_FIGURES: Final = 47
"""Columns that calls, tokens, cost and billed take; then what the others would like to have."""
_NOTES: Final = 36
_PARTS: Final = 23
_LABELS: Final = {
    "month": 9,
    "week": 12,
    "day": 12,
    "hour": 18,
    "user": 26,
    "key": 18,
    "meeting": 22,
    "customer": 26,
    "cost-centre": 16,
    "model": 22,
    "endpoint": 12,
    "tier": 9,
    "evidence": 12,
}
_WHOLE: Final = ("month", "week", "day", "hour")
_ID_SHOWN: Final = 8


def usage_table(report: UsageReport, width: int) -> TextTable:
    """The report as a table for a terminal `width` columns wide: numbers right-aligned, totals in the last row.

    Where it is narrow, tokens are not split, and what is estimated, unpriced or void is told for the total only.
    """
    room = width - _FIGURES - sum(_LABELS[dimension] for dimension in report.by)
    notes, parts = room >= _NOTES, room >= _NOTES + _PARTS
    below = "" if notes else ", ".join(_notes(report.totals))
    table = TextTable(
        title=_title(report),
        caption=f"Of these calls: {below}" if below else None,
        footer=bool(report.by),
    )
    for number, dimension in enumerate(report.by):
        table.add_column(dimension, footer="" if number else "total", no_wrap=dimension in _WHOLE)
    for name, footer in _cells(report.totals, parts=parts).items():
        table.add_column(name, footer=footer, right=True, no_wrap=True)
    if notes:
        table.add_column("of which", footer=lines(_notes(report.totals)), no_wrap=True)
    for row in report.rows:
        labels = [_label(dimension, row) for dimension in report.by]
        last = [lines(_notes(row))] if notes else []
        table.add_row(*labels, *_cells(row, parts=parts).values(), *last)
    return table


def _title(report: UsageReport) -> str:
    of = [f"{name.removesuffix('_id')} {value}" for name, value in report.of.asked().items()]
    return f"Usage {report.span()}, USD{''.join(f', {item}' for item in of)}"


def _cells(row: UsageRow, *, parts: bool) -> dict[str, str]:
    split = {"prompt": f"{row.prompt_tokens:,}", "completion": f"{row.completion_tokens:,}"} if parts else {}
    return {
        "calls": f"{row.calls:,}",
        **split,
        "tokens": f"{row.total_tokens:,}",
        "cost": money_text(row, "cost_usd") or "–",
        "billed": money_text(row, "billed_usd") or "–",
    }


def _notes(row: UsageRow) -> list[str]:
    kinds = {
        f"estimated ({row.estimated_cost_usd:.9f}){_open(row.estimated, row.estimated_open)}": row.estimated,
        f"unpriced{_open(row.unpriced, row.unpriced_open)}": row.unpriced,
        "void": row.void,
        f"adjusted ({row.adjustment_cost_usd:+.9f})": row.adjustments,
    }
    return [f"{count:,} {kind}" for kind, count in kinds.items() if count]


def _open(calls: int, still_open: int) -> str:
    """How many of these calls nothing has corrected since; nothing to say where that is all of them."""
    return "" if calls == still_open else f", {still_open:,} open"


def _label(dimension: str, row: UsageRow) -> Cell:
    """What a person calls this group; never read as markup, because names are the users' own."""
    match dimension:
        case "month":
            return f"{row.month:%Y-%m}"
        case "week":
            return f"{row.week:%Y-%m-%d}"
        case "day":
            return f"{row.day:%Y-%m-%d}"
        case "hour":
            return f"{row.hour:%Y-%m-%d %H:%M}"
        case "user":
            return _name_cells(row.email, row.user_id)
        case "key":
            return "(no key)" if row.key_id is None else _name_cells(row.key_name, row.key_id)
        case "meeting":
            return "(no meeting)" if row.meeting_id is None else _name_cells(row.room_name, row.meeting_id)
        case "customer":
            return "(no customer)" if row.customer_id is None else _name_cells(row.customer, row.customer_id)
        case "cost-centre":
            return row.cost_centre or "(none)"
        case _:
            return getattr(row, dimension) or "(none)"


def _name_cells(name: str | None, full_id: str | None) -> Cell:
    short = (full_id or "")[:_ID_SHOWN]
    return cell(name or "(no name)", " ", (f"{short}…", "dim"))
