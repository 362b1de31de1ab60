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
    table.add_column("user", footer="total")
    for name, footer in zip(("windows", "amount"), footers, strict=False):
        table.add_column(name, footer=footer, right=True, no_wrap=True)
    table.add_column("of it", footer=_ages(*totals[2:]))
    table.add_column("used (UTC)")
    for user in found:
        who = user.email if user.customer is None else f"{user.email} ({user.customer} pays today)"
        ages = _ages(user.in_period_nano, user.in_35_days_nano, user.older_nano)
        used = f"{minute(user.first_at)} – {minute(user.last_at)}"
        table.add_row(who, f"{user.windows:,}", nano_text(user.nano), ages, used)
    return table


def _ages(in_period: int, in_35_days: int, older: int) -> str:
    """Of an amount, what is of this month, what Stripe takes at its own time, and what is too old for that."""
    parts = {"this month": in_period, "earlier": in_35_days, "over 35 days old": older}
    found = {name: nano for name, nano in parts.items() if nano}
    if len(found) == 1:
        return next(iter(found))
    return ", ".join(f"{nano_text(nano)} {name}" for name, nano in found.items())
