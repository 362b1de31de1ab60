"""The usage report as CSV (RFC 4180) for spreadsheets and loaders. Sums nothing itself.

Text that users chose must not become a formula where the file is opened: it is defused, numbers never are.
Nor may it steer a terminal: what would is written as its escape.
"""

import csv
import io
from typing import Any, Final

from gateway.cli.csv_text import text_field
from gateway.reports.usage import UsageReport, amounts

TOTAL: Final = "total"


def usage_csv(report: UsageReport, *, totals: bool = False) -> str:
    """One header line, then one line per group: UTC, ids whole, money with nine decimals, lines ended by CR LF.

    `totals` adds a last line whose first cell is `total` (grouped by nothing, the only line is the total); without it
    every line is a group, so that a column can be summed as it is.
    """
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    labels = report.label_fields()
    writer.writerow([*labels, *amounts(report.totals)])
    for row in report.rows:
        figures = amounts(row).values()  # None is an empty cell: no amount is known
        writer.writerow([*map(text_field, report.labels(row).values()), *figures])
    if totals and (labels or not report.rows):
        blank: list[Any] = [TOTAL, *[""] * (len(labels) - 1)] if labels else []
        writer.writerow([*blank, *amounts(report.totals).values()])
    return out.getvalue()
