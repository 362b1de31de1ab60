"""What goes into a pack, read from one snapshot. Rows come from a cursor of the server's, a few at a time."""

import json
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

from gateway.billing.bridge_store import BOOKED
from gateway.close.rows import BLOCK_ROWS, PackRow
from gateway.stores.postgres import translating_errors
from gateway.usage.usage_block import NO_USAGE

_PREFETCH_ROWS: Final = 500
# Ids alone are sorted: sorting whole rows would write them all to disk once more.
IDS: Final = f"select id from {BOOKED} booked order by id"  # noqa: S608 - a constant of ours
_ROWS: Final = """
select id::text, booked_at, completed_at, started_at, inserted_at, user_id::text, customer_id::text, api_key_id::text,
  meeting_id::text, adjusts::text, endpoint, model, service_tier, evidence, prompt_tokens, completion_tokens,
  total_tokens, (cost_usd * 1000000000)::bigint as cost_nano, (billed_usd * 1000000000)::bigint as billed_nano,
  price_version, plan_version, books_version, response_id, request_id, cost_lines::text, usage::text, usage_raw,
  metadata::text
from public.openai_usage where id = any($1::uuid[]) order by id
"""
_BOOKS: Final = "select version, files::text from public.price_books where version = any($1::text[]) order by version"
CORRECTIONS: Final = """
select c.id, c.made_at, c.made_by, c.approved_by, c.kind, c.why, c.ticket, count(*) as rows,
  coalesce(sum(u.cost_usd), 0) as cost_usd, coalesce(sum(u.billed_usd), 0) as billed_usd
from public.corrections c join public.correction_rows r on r.correction_id = c.id
join public.openai_usage u on u.id = r.adjustment_id
where u.booked_at >= $1 and u.booked_at < $2 group by c.id order by c.made_at, c.id
"""
OPEN_ITEMS: Final = """
select id, kind, upstream_id, user_id, endpoint, model, opened_at, polls, last_error from public.open_items
where state = 'open' and opened_at < $2 and $1::timestamptz is not null order by opened_at, id
"""
# Amounts are whole micro-USD (events) or the currency's smallest unit (invoices), as Stripe has them.
STRIPE: Final = """
with events as (
  select * from public.stripe_meter_events
  where coalesce(original_window, window_start) >= $1 and coalesce(original_window, window_start) < $2
)
select * from (
  select 'event' as kind, e.id::text as id, null::text as event, e.customer, coalesce(e.original_window, e.window_start)
    as window_start, e.event_timestamp as at, e.value as amount, e.state, e.identifier, e.reason,
    coalesce(e.settled_ref, e.replaces::text) as reference, e.last_error as note
  from events e
  union all
  select 'attempt', a.id::text, a.event_id::text, null, null, a.at, null, a.outcome, a.identifier, null,
    a.stripe_request_id, a.error
  from public.stripe_attempts a where a.event_id in (select id from events)
  union all
  select 'decision', d.id::text, d.event_id::text, null, null, d.at, null, d.action, null, d.why, d.reference, d.who
  from public.stripe_decisions d where d.event_id in (select id from events)
  union all
  select 'invoice', i.id, null, i.customer, i.period_start, i.period_end, i.total, i.status, i.number, i.billing_reason,
    i.subscription, i.currency
  from public.stripe_invoices i where i.period_start < $2 and i.period_end > $1
) each order by kind, at, id
"""

# What was decided about amounts that users had accrued before anybody paid, of users who have some in the month. One
# decision may be about several months.
ACCRUED: Final = """
select d.id, d.made_at, d.made_by, d.user_id, u.email, d.customer_id, c.stripe_customer_id as customer, d.action,
  d.windows, d.nano * 0.000000001 as usd, d.reference, d.why
from public.accrued_decisions d join public.users u on u.id = d.user_id join public.customers c on c.id = d.customer_id
where d.user_id in (
  select w.user_id from public.billing_windows w
  where w.user_id is not null and w.window_start >= $1 and w.window_start < $2)
order by d.made_at, d.id
"""


async def read_blocks(connection: Any, since: datetime, until: datetime) -> AsyncIterator[list[PackRow]]:
    """The rows booked in the span, in the order of their ids, BLOCK_ROWS at a time. Raises DependencyDown."""
    with translating_errors():
        ids = await connection.cursor(IDS, since, until)
        while batch := await ids.fetch(BLOCK_ROWS):
            yield [_pack_row(dict(row)) for row in await connection.fetch(_ROWS, [each["id"] for each in batch])]


def _pack_row(values: dict[str, Any]) -> PackRow:
    values["usage"] = values["usage"] or "null"
    for name in ("cost_lines", "usage", "metadata"):
        values[name] = NO_USAGE if values[name] == "null" else msgspec.Raw(values[name].encode())
    return PackRow(**values)


async def read_books(connection: Any, versions: Iterable[str]) -> dict[str, dict[str, str]]:
    """Of these price books, the files of those that are kept."""
    found = await connection.fetch(_BOOKS, sorted(versions))
    return {row["version"]: json.loads(row["files"]) for row in found}


async def read_table(connection: Any, query: str, since: datetime, until: datetime) -> AsyncIterator[list[object]]:
    """Rows of a constant of this file, as plain values for a CSV file; the first has the names of the columns."""
    with translating_errors():
        statement = await connection.prepare(query)
        yield [attribute.name for attribute in statement.get_attributes()]
        async for row in statement.cursor(since, until, prefetch=_PREFETCH_ROWS):
            yield [_plain(value) for value in row.values()]


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return value if value is None or isinstance(value, int | Decimal | str) else str(value)
