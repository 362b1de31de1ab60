"""How a reconciliation is shown."""

from typing import Any

from gateway.billing.reconcile.compare import FAILS, PayerResult
from gateway.billing.reconcile.run import NOBODY, MonthResult
from gateway.cli.console import Console, TextTable
from gateway.kit.instants import rfc3339
from pricing.money import nano_text


def show(console: Console, result: MonthResult) -> None:
    """For a person."""
    title = f"{result.period.since:%Y-%m} (UTC), USD; Stripe read {rfc3339(result.read_at)}"
    table = TextTable("customer", title=title)
    for name in ("billed", "credit", "not sent yet", "delivered", "summaries", "on invoices"):
        table.add_column(name, right=True)
    for one in result.payers:
        month = one.month
        table.add_row(
            _name(one),
            nano_text(month.ledger),
            nano_text(month.credit),
            nano_text(month.open),
            nano_text(one.events_nano.get("delivered", 0) + one.events_nano.get("late", 0)),
            "" if one.summaries is None else nano_text(one.summaries * 1000),
            nano_text(one.invoiced * 1000),
        )
    console.print_table(table)
    for one in result.payers:
        for text, nano in _decided(one).items():
            console.say(f"  {_name(one)}: {nano_text(nano)} USD: {text}")
        for each in one.differences:
            mark = "!" if each.cause in FAILS else " "
            console.say(f"{mark} {_name(one)}: {each.cause} {nano_text(each.nano)} USD: {each.text}")
    console.say("Something is not explained." if result.fails else "Every difference has its cause.")


def _decided(one: PayerResult) -> dict[str, int]:
    """What became of amounts in windows by decision, in words."""
    found = {
        "accrued before anybody paid, billed to a customer by decision": one.month.accrued,
        "settled by hand or written off before an event was made of it": -one.month.settled,
    }
    return {text: nano for text, nano in found.items() if nano}


def to_json(result: MonthResult) -> dict[str, Any]:
    """Plain values; amounts are text."""
    return {
        "month": f"{result.period.since:%Y-%m}",
        "read_at": rfc3339(result.read_at),
        "is_explained": not result.fails,
        "customers": [_plain(one) for one in result.payers],
    }


def _plain(one: PayerResult) -> dict[str, Any]:
    month = one.month
    return {
        "customer": month.customer or None,
        "name": month.name or None,
        "ledger_usd": nano_text(month.ledger),
        "windows_usd": nano_text(month.windows_billed),
        "accrued_usd": nano_text(month.accrued),
        "credit_usd": nano_text(month.credit),
        "settled_usd": nano_text(month.settled),
        "open_usd": nano_text(month.open),
        "frozen_usd": nano_text(month.frozen),
        "events_usd": {name: nano_text(nano) for name, nano in sorted(one.events_nano.items())},
        "filed_in_month_usd": nano_text(one.delivered_in_month * 1000),
        "summaries_usd": None if one.summaries is None else nano_text(one.summaries * 1000),
        "invoiced_usd": nano_text(one.invoiced * 1000),
        "lines": [line.id for line in month.lines],
        "differences": [
            {"cause": each.cause, "usd": nano_text(each.nano), "text": each.text} for each in one.differences
        ],
    }


def _name(one: PayerResult) -> str:
    if one.month.customer == NOBODY:
        return "before anybody paid"
    return f"{one.month.customer} {one.month.name}".rstrip()
