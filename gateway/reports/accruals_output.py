"""Accruals as a table for people and as CSV. Sums nothing itself."""

import csv
import io

from gateway.cli.console import TextTable
from gateway.cli.csv_text import text_field
from gateway.reports.accruals import AccrualReport
from pricing.money import nano_text


def accruals_table(report: AccrualReport, _width: int) -> TextTable:
    """One line for each customer and cause."""
    table = TextTable(
        title=f"Accruals of {report.period.since:%Y-%m} (UTC), USD before tax, as of {report.as_of:%Y-%m-%d %H:%M}",
        caption=f"earned, not invoiced: {report.total('earned_not_invoiced'):.9f}; "
        f"invoiced, not earned: {report.total('invoiced_not_earned'):.9f}",
    )
    for name in ("kind", "cause", "customer", "name"):
        table.add_column(name)
    table.add_column("USD", right=True, no_wrap=True)
    for row in report.rows:
        table.add_row(row.kind.replace("_", " "), row.cause, row.customer, row.name, nano_text(row.nano))
    return table


def accruals_csv(report: AccrualReport) -> str:
    """One header line and one line for each amount (RFC 4180)."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(["month", "kind", "cause", "customer", "name", "usd"])
    for row in report.rows:
        text = (text_field(row.cause), text_field(row.customer), text_field(row.name))
        writer.writerow([f"{report.period.since:%Y-%m}", row.kind, *text, nano_text(row.nano)])
    return out.getvalue()
