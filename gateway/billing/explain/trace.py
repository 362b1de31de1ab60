"""Follows the chain from whatever is at hand: an invoice, a line, an event, a row of the ledger, an id of OpenAI's."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from gateway.billing.explain.chain import (
    BilledLine,
    ExplainedRow,
    InvoiceChain,
    OutboxEvent,
    PayerWindow,
    build_chain,
    window_key,
)
from gateway.billing.explain.store import ExplainStore
from gateway.config.settings import Settings
from gateway.kit.errors import OptionError
from gateway.stores.one_connection import database

_WHY: Final = "ledger, outbox and invoices are in PostgreSQL"
UNKNOWN: Final = (
    "is known here neither as an invoice, a line of one, a meter event or a row, nor as an id of OpenAI's; "
    "an invoice of before the webhooks were set up is read by `gateway stripe sync`"
)


class TracedEvent(NamedTuple):
    """An event, with what it is made of and where it is billed."""

    event: OutboxEvent
    attempts: Sequence[dict[str, Any]]
    windows: Sequence[PayerWindow]
    siblings: Sequence[OutboxEvent]
    """All events of these windows."""
    rows: Sequence[ExplainedRow]
    lines: Sequence[BilledLine]


class TracedRow(NamedTuple):
    """A row, with the events that have its amount, and the lines that bill these."""

    row: ExplainedRow
    windows: Sequence[PayerWindow]
    events: Sequence[OutboxEvent]
    lines: Sequence[BilledLine]


class Explained(NamedTuple):
    """What is known of something; one of the three kinds."""

    chains: Sequence[InvoiceChain] = ()
    events: Sequence[TracedEvent] = ()
    rows: Sequence[TracedRow] = ()
    emails: dict[UUID, str] = {}  # noqa: RUF012  # a NamedTuple's default, which nobody changes


async def explain(settings: Settings, name: str) -> Explained:
    """What `name` is made of, and where it ends. Raises OptionError when nothing has this name, DependencyDown."""
    if not name.isprintable():  # PostgreSQL's text has no NUL and no half of a surrogate pair
        raise OptionError(f"{name!a} {UNKNOWN}")
    async with database(settings, _WHY) as pool:
        store = ExplainStore(pool)
        found = await _explain(store, name)
        users = {row.user_id for row in _every_row(found)}
        return found._replace(emails=await store.emails(sorted(users)))


async def trace_line(store: ExplainStore, line: BilledLine) -> InvoiceChain:
    """The chain of one line."""
    filed = await store.events_filed(line.customer, line.meter, line.since, line.until)
    windows = {window_key(one): one for one in await store.windows_of(filed)}
    for one in await store.windows_between(line.customer, line.meter, line.since, line.until):
        windows.setdefault(window_key(one), one)
    ordered = sorted(windows.values(), key=lambda one: (one.start, str(one.customer_id), str(one.user_id)))
    events = {one.id: one for one in (*filed, *await store.events_of(ordered))}
    rows = [row for window in ordered for row in await store.rows(window)]
    due = await store.credit_due(line.customer, line.meter)
    return build_chain(line, sorted(events.values()), ordered, rows, due)


async def _explain(store: ExplainStore, name: str) -> Explained:
    if lines := await store.lines(name):
        return Explained(chains=[await trace_line(store, line) for line in lines])
    if await store.is_invoice(name):
        raise OptionError(f"{name} has no line that bills usage")
    if (event := await store.event(name)) is not None:
        return Explained(events=[await _trace_event(store, event)])
    if rows := await store.row(name):
        return Explained(rows=[await _trace_row(store, row) for row in rows])
    raise OptionError(f"{name!r} {UNKNOWN}")


async def _trace_event(store: ExplainStore, event: OutboxEvent) -> TracedEvent:
    windows = await store.windows_of([event])
    return TracedEvent(
        event,
        await store.attempts(event),
        windows,
        await store.events_of(windows),
        [row for window in windows for row in await store.rows(window)],
        await store.lines_at(event.customer, event.meter, event.at),
    )


async def _trace_row(store: ExplainStore, row: ExplainedRow) -> TracedRow:
    windows = await store.windows_holding(row)
    events = await store.events_of(windows)
    lines = {line.id: line for event in events for line in await store.lines_at(event.customer, event.meter, event.at)}
    return TracedRow(row, windows, events, list(lines.values()))


def _every_row(found: Explained) -> list[ExplainedRow]:
    return [
        *(row for chain in found.chains for row in chain.rows),
        *(row for traced in found.events for row in traced.rows),
        *(traced.row for traced in found.rows),
    ]
