"""What `gateway billing unbilled` shows."""

import csv
import io
from datetime import datetime
from typing import Final

from gateway.billing.unbilled import UnbilledUser, list_unbilled
from gateway.cli.console import Console, TextTable
from gateway.cli.csv_text import text_field
from gateway.cli.text import minute
from gateway.config.settings import Settings
from pricing import nano_text

_COLUMNS: Final = (
    "user_id", "email", "stripe_customer_id", "first_usage", "last_usage", "windows",
    "usd", "in_period_usd", "in_35_days_usd", "older_usd",
)  # fmt: skip
_FIGURES: Final = ("windows", "usd", "in_period_usd", "in_35_days_usd", "older_usd")


async def show_unbilled(settings: Settings, console: Console, *, now: datetime, as_json: bool, as_csv: bool) -> None:
    """Users with amounts of times in which nobody paid for them."""
    found = await list_unbilled(settings, now)
    if as_json:
        console.print_json([user.to_json() for user in found])
    elif as_csv:
        console.write_lines(unbilled_csv(found))
    elif found:
        console.print_table(_table(found))
    else:
        console.say("Nothing is unbilled: a customer pays for all usage, or it was decided about.")


def unbilled_csv(found: list[UnbilledUser]) -> str:
    """RFC 4180: a header, then a line per user."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(_COLUMNS)
    for user in found:
        plain = user.to_json()
        writer.writerow(plain[name] if name in _FIGURES else text_field(plain[name] or "") for name in _COLUMNS)
    return out.getvalue()


def _table(found: list[UnbilledUser]) -> TextTable:
    table = TextTable(title="Amounts that nobody pays, USD", footer=True)
    totals = [sum(values) for values in zip(*(user[5:] for user in found), strict=True)]
    footers = [f"{totals[0]:,}", *map(nano_text, totals[1:])]
    for name in ("user", "first (UTC)", "last (UTC)"):
        table.add_column(name, footer="total" if name == "user" else "", no_wrap=name != "user")
    for name, footer in zip(("windows", "amount", "this month", "in 35 days", "older"), footers, strict=True):
        table.add_column(name, footer=footer, right=True, no_wrap=True)
    for user in found:
        amounts = map(nano_text, user[6:])
        table.add_row(user.email, minute(user.first_at), minute(user.last_at), f"{user.windows:,}", *amounts)
    return table
