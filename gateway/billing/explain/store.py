"""Reads an invoice's line, events, windows and rows, each from the next. Holds no arithmetic."""

import json
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from gateway.billing.explain.chain import BilledLine, ExplainedRow, OutboxEvent, PayerWindow
from gateway.billing.filing import Subscription
from gateway.stores.postgres import Table

ID_MAX: Final = 2**63 - 1
"""Of an event's number, a bigint."""

# Meters are those that we have ever reported to, or shall: an invoice may have lines of other meters.
_LINES: Final = """
with ours as (select meter from public.outbox_totals union select meter from public.books)
select i.id as invoice, i.number, i.status, i.finalized_at, i.customer, l.line::text as line
from public.stripe_invoices i cross join lateral jsonb_array_elements(i.lines) as l (line)
where {where} and l.line ->> 'meter' in (select meter from ours) order by i.period_start, i.id, l.line ->> 'id'
"""
_BY_INVOICE: Final = _LINES.format(where="(i.id = $1 or i.number = $1)")
_BY_LINE: Final = _LINES.format(where="i.lines @> jsonb_build_array(jsonb_build_object('id', $1::text))")
_BY_TIME: Final = _LINES.format(
    where="""i.customer = $1 and i.status <> 'deleted' and l.line ->> 'meter' = $2
  and (l.line ->> 'since')::timestamptz <= $3 and (l.line ->> 'until')::timestamptz > $3"""
)
_BY_MONTH: Final = _LINES.format(
    where="""i.status <> 'deleted' and (l.line ->> 'since')::timestamptz < $2
  and (l.line ->> 'until')::timestamptz > $1"""
)
_IS_INVOICE: Final = "select exists (select from public.stripe_invoices where id = $1 or number = $1)"
_EVENT: Final = """
select id, identifier, customer_id, user_id, customer, meter, window_start, event_timestamp as at, value, state, reason,
  replaces, delivered_at, last_error, settled_ref
from public.stripe_meter_events
"""
_EVENT_NAMED: Final = f"{_EVENT} where identifier = $1"
_EVENT_NUMBERED: Final = f"{_EVENT} where id = $1::bigint"
_EVENTS_FILED: Final = f"""
{_EVENT} where customer = $1 and meter = $2 and event_timestamp >= $3 and event_timestamp < $4 order by id
"""
_EVENTS_OF: Final = f"""
{_EVENT} where meter = $1 and window_start = any($2::timestamptz[]) and (customer_id = any($3::uuid[])
  or user_id = any($4::uuid[])) order by id
"""
_SUBSCRIPTIONS: Final = """
select customer, meter, started_at, anchor, period_start, period_end, least(ended_at, removed_at) as ended_at
from public.stripe_subscriptions
where meter is not null and status not in ('incomplete', 'incomplete_expired') order by started_at, item
"""
_PAYER: Final = "select id from public.customers where stripe_customer_id = $1"
_WINDOW: Final = """
select customer_id, user_id, meter, window_start as start, window_seconds as seconds, billed_nano as billed,
  credit_nano as credit, frozen_nano as frozen, settled_nano as settled, false as is_old from public.billing_windows
"""
_WINDOWS: Final = f"{_WINDOW} where customer_id = $1 and meter = $2 and window_start >= $3 and window_start < $4"
# The windows of users from which customers ($1) took over what had accrued, by decision.
_LEFT_TO: Final = f"""
{_WINDOW} where meter = $2 and window_start = any($3::timestamptz[]) and accrued_nano <> 0 and user_id in (
  select user_id from public.accrued_decisions where customer_id = any($1::uuid[]) and action = 'bill')
"""  # noqa: S608 - constants of this file
# The windows of customers that took over what had accrued in a user's ($1).
_TAKEN_FROM: Final = f"""
{_WINDOW} where meter = $2 and window_start = any($3::timestamptz[]) and accrued_nano <> 0 and customer_id in (
  select customer_id from public.accrued_decisions where user_id = $1 and action = 'bill')
"""  # noqa: S608 - constants of this file
_WINDOWS_AT: Final = f"""
{_WINDOW} where meter = $1 and window_start = any($2::timestamptz[])
  and (customer_id = any($3::uuid[]) or customer_id is null and user_id = any($4::uuid[]))
"""
_HOLDS: Final = """
window_start <= {at} and window_start + window_seconds * interval '1 second' > {at}
"""
_WINDOW_HOLDING: Final = f"""
{_WINDOW} where (customer_id = $1 or customer_id is null and user_id = $2::uuid) and {_HOLDS.format(at="$3")}
"""
_OLD_WINDOW: Final = """
select null::uuid as customer_id, user_id, meter, window_start as start, window_seconds as seconds,
  nano - moved_nano as billed, 0 as credit, frozen_nano - moved_nano as frozen, 0 as settled, true as is_old
from public.stripe_windows
"""
_OLD_WINDOWS_AT: Final = f"""
{_OLD_WINDOW} where meter = $1 and window_start = any($2::timestamptz[]) and user_id = any($3::uuid[])
"""
_OLD_WINDOW_HOLDING: Final = f"{_OLD_WINDOW} where user_id = $1 and {_HOLDS.format(at='$2')}"
_ROW: Final = """
select u.id, u.user_id, u.completed_at, u.booked_at, u.model, u.endpoint, u.evidence, u.total_tokens,
  coalesce(u.billed_usd * 1000000000, 0)::bigint as billed_nano, u.request_id, u.response_id, u.adjusts, u.customer_id,
  u.books_version
from public.openai_usage u
"""
_ROW_NAMED: Final = f"{_ROW} where u.id = $1::uuid"
_ROW_ANSWER: Final = f"{_ROW} where u.response_id = $1 and u.adjusts is null"
_ROW_REQUEST: Final = f"{_ROW} where u.request_id = $1 order by u.id limit 100"
# By the index of a user's rows in time; a row that was booked later than it was completed is in late_rows.
_USERS: Final = """
select distinct user_id from public.usage_daily
where day >= ($2::timestamptz at time zone 'UTC')::date and day <= ($3::timestamptz at time zone 'UTC')::date
  and customer_id = $1
"""
_LATE: Final = f"""
{_ROW} join public.late_rows l on l.usage_id = u.id
where l.booked_at >= $3 and l.booked_at < $4 and not (u.created_at >= $3 and u.created_at < $4) and u.books_version > 0
"""
_IN_TIME: Final = f"""
{_ROW} where u.user_id = any($2::uuid[]) and u.created_at >= $3 and u.created_at < $4
  and u.booked_at >= $3 and u.booked_at < $4 and u.books_version > 0
"""
_ROWS_OF_CUSTOMER: Final = f"""
{_IN_TIME} and u.customer_id = $1 union all {_LATE} and u.customer_id = $1 order by booked_at, id
"""
_ROWS_OF_USER: Final = f"""
{_IN_TIME} and u.customer_id is not distinct from $1
union all {_LATE} and u.customer_id is not distinct from $1 and u.user_id = any($2::uuid[]) order by booked_at, id
"""
_OLD_ROWS: Final = f"""
{_ROW} where u.user_id = $1 and u.books_version = 0 and u.created_at >= $2 and u.created_at < $3
order by u.created_at, u.id
"""
_DUE: Final = """
select coalesce(sum(b.credit_due_nano), 0)::bigint from public.billing_carry b
join public.customers c on c.id = b.customer_id where c.stripe_customer_id = $1 and b.meter = $2
"""
_EMAILS: Final = "select id, email from public.users where id = any($1::uuid[])"
_ATTEMPTS: Final = """
select at, outcome, http_status, stripe_request_id, error from public.stripe_attempts
where event_id = $1 order by n, id
"""


class ExplainStore(Table):
    """All methods raise DependencyDown("postgres")."""

    async def lines(self, name: str) -> list[BilledLine]:
        """The lines of an invoice, by its id or number; or one line, by its id."""
        by = _BY_LINE if name.startswith("il_") else _BY_INVOICE
        return [_line(row) for row in await self._rows(by, name)]

    async def is_invoice(self, name: str) -> bool:
        """Whether such an invoice is kept here."""
        async with self._connection() as connection:
            return bool(await connection.fetchval(_IS_INVOICE, name))

    async def lines_at(self, customer: str, meter: str, at: datetime) -> list[BilledLine]:
        """The lines that bill an event of this time."""
        return [_line(row) for row in await self._rows(_BY_TIME, customer, meter, at)]

    async def lines_between(self, since: datetime, until: datetime) -> list[BilledLine]:
        """Every line whose period meets this span, of void invoices too."""
        return [_line(row) for row in await self._rows(_BY_MONTH, since, until)]

    async def subscriptions(self) -> dict[str, dict[str, list[Subscription]]] | None:
        """By customer, then by meter; None where Stripe was never asked about them."""
        found: dict[str, dict[str, list[Subscription]]] = {}
        for row in await self._rows(_SUBSCRIPTIONS):
            customer, meter, *values = row.values()
            found.setdefault(customer, {}).setdefault(meter, []).append(Subscription(*values))
        return found or None

    async def event(self, name: str) -> OutboxEvent | None:
        """By identifier or number."""
        is_number = name.isascii() and name.isdigit() and int(name) <= ID_MAX
        rows = await self._rows(_EVENT_NUMBERED, int(name)) if is_number else await self._rows(_EVENT_NAMED, name)
        return OutboxEvent(*rows[0].values()) if rows else None

    async def events_filed(self, customer: str, meter: str, since: datetime, until: datetime) -> list[OutboxEvent]:
        """Of a span of Stripe's times."""
        return [OutboxEvent(*row.values()) for row in await self._rows(_EVENTS_FILED, customer, meter, since, until)]

    async def events_of(self, windows: Sequence[PayerWindow]) -> list[OutboxEvent]:
        """Of these windows, in whatever state."""
        if not windows:
            return []
        customers = [one.customer_id for one in windows if one.customer_id is not None]
        users = [one.user_id for one in windows if one.user_id is not None]
        starts = [one.start for one in windows]
        rows = await self._rows(_EVENTS_OF, windows[0].meter, starts, customers, users)
        return [OutboxEvent(*row.values()) for row in rows]

    async def attempts(self, event: OutboxEvent) -> list[dict[str, Any]]:
        """What was tried."""
        return [dict(row) for row in await self._rows(_ATTEMPTS, event.id)]

    async def windows_between(self, customer: str, meter: str, since: datetime, until: datetime) -> list[PayerWindow]:
        """A customer's windows of a span."""
        async with self._connection() as connection:
            payer = await connection.fetchval(_PAYER, customer)
            rows = await connection.fetch(_WINDOWS, payer, meter, since, until)
        return await self._with_users([PayerWindow(*row.values()) for row in rows])

    async def windows_of(self, events: Sequence[OutboxEvent]) -> list[PayerWindow]:
        """The windows that the amounts of events come from."""
        if not events:
            return []
        customers = [one.customer_id for one in events if one.customer_id is not None and one.user_id is None]
        users = [one.user_id for one in events if one.user_id is not None]
        starts, meter = [one.window_start for one in events], events[0].meter
        found = [*await self._rows(_WINDOWS_AT, meter, starts, customers, users)]
        found += await self._rows(_OLD_WINDOWS_AT, meter, starts, users)
        return await self._with_users([PayerWindow(*row.values()) for row in found])

    async def windows_holding(self, row: ExplainedRow) -> list[PayerWindow]:
        """The window that a row's amount went into; with several meters, one of each."""
        if row.books_version == 0:
            found = await self._rows(_OLD_WINDOW_HOLDING, row.user_id, row.completed_at)
        else:
            user_id = row.user_id if row.customer_id is None else None
            found = await self._rows(_WINDOW_HOLDING, row.customer_id, user_id, row.booked_at)
            for one in found if user_id is not None else ():
                found = [*found, *await self._rows(_TAKEN_FROM, user_id, one["meter"], [one["start"]])]
        return [PayerWindow(*one.values()) for one in found]

    async def _with_users(self, windows: list[PayerWindow]) -> list[PayerWindow]:
        """These windows, and those of users from which their customers took something over."""
        payers = [one.customer_id for one in windows if one.customer_id is not None]
        starts = [one.start for one in windows if one.customer_id is not None]
        rows = await self._rows(_LEFT_TO, payers, windows[0].meter, starts) if payers else []
        known = {(one.user_id, one.start) for one in windows}
        left = [PayerWindow(*row.values()) for row in rows]
        return windows + [one for one in left if (one.user_id, one.start) not in known]

    async def rows(self, window: PayerWindow) -> list[ExplainedRow]:
        """The calls and corrections of a window."""
        if window.is_old:
            rows = await self._rows(_OLD_ROWS, window.user_id, window.start, window.end)
        elif window.customer_id is None:
            rows = await self._rows(_ROWS_OF_USER, None, [window.user_id], window.start, window.end)
        else:
            users = await self._rows(_USERS, window.customer_id, window.start, window.end)
            about = (window.customer_id, [row["user_id"] for row in users], window.start, window.end)
            rows = await self._rows(_ROWS_OF_CUSTOMER, *about)
        return [ExplainedRow(*row.values()) for row in rows]

    async def row(self, name: str) -> list[ExplainedRow]:
        """By id, OpenAI's id of the answer, or OpenAI's request id."""
        try:
            found = await self._rows(_ROW_NAMED, UUID(name))
        except ValueError:
            found = await self._rows(_ROW_ANSWER, name) or await self._rows(_ROW_REQUEST, name)
        return [ExplainedRow(*row.values()) for row in found]

    async def credit_due(self, customer: str, meter: str) -> int:
        """Nano-USD that corrections owe to the customer."""
        async with self._connection() as connection:
            return int(await connection.fetchval(_DUE, customer, meter))

    async def emails(self, user_ids: Sequence[UUID]) -> dict[UUID, str]:
        """Of users."""
        return {row["id"]: row["email"] for row in await self._rows(_EMAILS, list(user_ids))}


def _line(row: Any) -> BilledLine:
    line: dict[str, Any] = json.loads(row["line"])
    quantity = line["quantity"]
    return BilledLine(
        row["invoice"],
        row["number"],
        row["status"],
        row["finalized_at"],
        row["customer"],
        line["id"],
        line["amount"],
        line["currency"],
        None if quantity is None else Decimal(quantity),
        line["meter"],
        datetime.fromisoformat(line["since"]),
        datetime.fromisoformat(line["until"]),
    )
