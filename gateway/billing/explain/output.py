"""How `gateway stripe explain` is shown: for a person, as JSON, and as a CSV of every call for a dispute."""

import csv
import io
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from gateway.billing.explain.chain import (
    BilledLine,
    ExplainedRow,
    InvoiceChain,
    OutboxEvent,
    PayerWindow,
    event_key,
    window_key,
)
from gateway.billing.explain.trace import Explained, TracedEvent, TracedRow
from gateway.cli.console import Console, TextTable
from gateway.cli.csv_text import text_field
from gateway.kit.instants import rfc3339
from pricing.money import nano_text

SHOWN_MAX: Final = 50
WITHOUT_DECIMALS: Final = (
    "bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf",
)  # fmt: skip
WITH_THREE_DECIMALS: Final = ("bhd", "jod", "kwd", "omr", "tnd")
"""docs.stripe.com, currencies: all others have two decimals."""
COLUMNS: Final = (
    "invoice", "line", "events", "window_start", "row_id", "completed_at", "booked_at", "user_id", "user_email",
    "model", "endpoint", "evidence", "total_tokens", "request_id", "response_id", "adjusts", "billed_usd",
)  # fmt: skip


def show(console: Console, found: Explained) -> None:
    """All of it, for a person."""
    for chain in found.chains:
        _show_chain(console, chain)
    for event in found.events:
        _show_event(console, event, found.emails)
    for row in found.rows:
        _show_row(console, row, found.emails)


def is_whole(found: Explained) -> bool:
    """Whether every line is explained to the nano-dollar."""
    return not any(chain.unexplained_nano for chain in found.chains)


def to_csv(found: Explained) -> str:
    """One line for each row of the ledger, with all that it is a part of."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for line, events, window, row in _parts(found):
        writer.writerow(
            [
                "" if line is None else line.number or line.invoice,
                "" if line is None else line.id,
                text_field(" ".join(event.identifier for event in events)),
                "" if window is None else rfc3339(window.start),
                row.id,
                rfc3339(row.completed_at),
                rfc3339(row.booked_at),
                row.user_id,
                text_field(found.emails.get(row.user_id)),
                text_field(row.model),
                row.endpoint,
                row.evidence,
                "" if row.total_tokens is None else row.total_tokens,
                text_field(row.request_id),
                text_field(row.response_id),
                row.adjusts or "",
                _billed(row),
            ]
        )
    return out.getvalue()


def to_json(found: Explained) -> dict[str, Any]:
    """Plain values; amounts are text."""
    return {
        "chains": [_plain_chain(chain) for chain in found.chains],
        "events": [
            {
                **plain(traced.event),
                "attempts": [_plain_values(one) for one in traced.attempts],
                "windows": [plain(one) for one in traced.windows],
                "rows": [_plain_row(one) for one in traced.rows],
                "lines": [plain(one) for one in traced.lines],
            }
            for traced in found.events
        ],
        "rows": [
            {
                **_plain_row(traced.row),
                "windows": [plain(one) for one in traced.windows],
                "events": [plain(one) for one in traced.events],
                "lines": [plain(one) for one in traced.lines],
            }
            for traced in found.rows
        ],
    }


def plain(value: Any) -> dict[str, Any]:
    """The fields of a NamedTuple, as JSON has them."""
    return _plain_values(value._asdict())


def _plain_row(row: ExplainedRow) -> dict[str, Any]:
    return plain(row) | ({"billed_nano": None} if row.is_unpriced else {})


def _billed(row: ExplainedRow) -> str:
    return "" if row.is_unpriced else nano_text(row.billed_nano)


def _plain_values(values: dict[str, Any]) -> dict[str, Any]:
    return {name: _plain_value(value) for name, value in values.items()}


def _plain_value(value: Any) -> Any:
    if value is None or isinstance(value, str | int):
        return value
    return (
        rfc3339(value) if hasattr(value, "astimezone") else f"{value:f}" if isinstance(value, Decimal) else str(value)
    )


def _plain_chain(chain: InvoiceChain) -> dict[str, Any]:
    return {
        "line": plain(chain.line),
        "steps": [
            {"key": step.key, "title": step.title, "usd": nano_text(step.nano), "is_sum": step.is_sum}
            for step in chain.steps
        ],
        "causes": chain.causes,
        "unexplained_usd": nano_text(chain.unexplained_nano),
        "events": [plain(one) for one in chain.events],
        "windows": [plain(one) for one in chain.windows],
        "rows": [_plain_row(one) for one in chain.rows],
    }


def _parts(
    found: Explained,
) -> Iterator[tuple[BilledLine | None, Sequence[OutboxEvent], PayerWindow | None, ExplainedRow]]:
    for chain in found.chains:
        for row, window in _with_windows(chain.rows, chain.windows):
            own = [] if window is None else [one for one in chain.events if event_key(one) == window_key(window)]
            yield chain.line, own, window, row
    for event in found.events:
        for row, window in _with_windows(event.rows, event.windows):
            yield (event.lines[0] if event.lines else None), [event.event], window, row
    for traced in found.rows:
        line = traced.lines[0] if traced.lines else None
        yield line, traced.events, (traced.windows[0] if traced.windows else None), traced.row


def _with_windows(
    rows: Sequence[ExplainedRow], windows: Sequence[PayerWindow]
) -> Iterator[tuple[ExplainedRow, PayerWindow | None]]:
    for row in rows:
        yield row, next((window for window in windows if holds(window, row)), None)


def holds(window: PayerWindow, row: ExplainedRow) -> bool:
    """Whether a row's amount went into this window."""
    at = row.completed_at if row.books_version == 0 else row.booked_at
    owner = window.user_id == row.user_id if row.customer_id is None or window.is_old else False
    return (owner or (window.customer_id is not None and window.customer_id == row.customer_id)) and (
        window.start <= at < window.end
    )


def _show_chain(console: Console, chain: InvoiceChain) -> None:
    line = chain.line
    console.say(
        f"{line.invoice} ({line.number or 'no number yet'}) of {line.customer}, {line.status}",
        f"{line.id}: {line.since:%Y-%m-%d %H:%M} to {line.until:%Y-%m-%d %H:%M} UTC, {line.meter}",
        f"{line.quantity or 0:f} micro-USD, {money(line.amount, line.currency)}",
    )
    table = TextTable("USD", "")
    for step in chain.steps:
        if step.nano or step.is_sum:
            table.add_row(nano_text(step.nano).rjust(24), ("= " if step.is_sum else "  ") + step.title)
    console.print_table(table)
    console.say(*chain.causes)
    if chain.unexplained_nano:
        console.say(f"NOT EXPLAINED: {nano_text(chain.unexplained_nano)} USD")
    _show_events(console, chain.events)
    console.say("Every call of it: --csv", "")


def _show_lines_of(console: Console, *rows: Sequence[str]) -> None:
    """Columns whose cells are never broken or cut: ids are there to be copied."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        console.say("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _show_events(console: Console, events: Sequence[OutboxEvent]) -> None:
    shown = [
        (
            event.identifier,
            event.state,
            nano_text(event.value * 1000)[:-3],
            f"{event.at:%Y-%m-%d %H:%M:%S}",
            f"{event.window_start:%Y-%m-%d %H:%M}",
            event.reason,
        )
        for event in events[:SHOWN_MAX]
    ]
    _show_lines_of(console, ("event", "state", "USD", "filed under (UTC)", "window (UTC)", "why"), *shown)
    if len(events) > SHOWN_MAX:
        console.say(f"… and {len(events) - SHOWN_MAX} more: --json")


def _show_event(console: Console, traced: TracedEvent, emails: dict[UUID, str]) -> None:
    event = traced.event
    console.say(
        event.identifier,
        f"{nano_text(event.value * 1000)[:-3]} USD for {event.customer}, {event.state}, {event.reason}, filed under "
        f"{event.at:%Y-%m-%d %H:%M:%S} UTC",
        *([f"last error: {event.last_error}"] if event.last_error else []),
        *(f"tried {one['at']:%Y-%m-%d %H:%M:%S}: {one['outcome']} {one['error'] or ''}" for one in traced.attempts),
    )
    for window in traced.windows:
        console.say(
            f"window {window.start:%Y-%m-%d %H:%M}, {window.seconds} s: billed {nano_text(window.billed)}, credit "
            f"{nano_text(window.credit)}, settled {nano_text(window.settled)}, made into events "
            f"{nano_text(window.frozen)}"
        )
    _show_events(console, traced.siblings)
    _show_rows(console, traced.rows, emails)
    _show_lines(console, traced.lines)


def _show_row(console: Console, traced: TracedRow, emails: dict[UUID, str]) -> None:
    _show_rows(console, [traced.row], emails)
    _show_events(console, traced.events)
    _show_lines(console, traced.lines)


def _show_rows(console: Console, rows: Sequence[ExplainedRow], emails: dict[UUID, str]) -> None:
    shown = [
        (
            str(row.id),
            f"{row.completed_at:%Y-%m-%d %H:%M:%S}",
            emails.get(row.user_id, str(row.user_id)),
            row.model,
            row.evidence,
            _billed(row),
            row.request_id or row.response_id or "",
        )
        for row in rows[:SHOWN_MAX]
    ]
    _show_lines_of(console, ("row", "completed (UTC)", "user", "model", "evidence", "USD", "request"), *shown)
    if len(rows) > SHOWN_MAX:
        console.say(f"… and {len(rows) - SHOWN_MAX} more: --csv")


def _show_lines(console: Console, lines: Sequence[BilledLine]) -> None:
    if not lines:
        console.say("On no invoice that is known here yet.")
    for line in lines:
        console.say(
            f"on {line.invoice} ({line.number or 'no number yet'}), {line.status}, line {line.id}: "
            f"{money(line.amount, line.currency)}"
        )


def money(minor: int, currency: str) -> str:
    """An amount of Stripe's, which is in the currency's smallest unit."""
    places = 0 if currency in WITHOUT_DECIMALS else 3 if currency in WITH_THREE_DECIMALS else 2
    return f"{Decimal(minor).scaleb(-places):f} {currency.upper()}"
