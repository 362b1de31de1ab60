"""Reads a month of every customer, from one snapshot."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from gateway.billing.explain.chain import BilledLine, OutboxEvent
from gateway.stores.postgres import Table

_LEDGER: Final = """
select customer_id, sum(billed_nano)::bigint as nano, sum(billed_before_nano)::bigint as before from public.usage_daily
where day >= ($1::timestamptz at time zone 'UTC')::date and day < ($2::timestamptz at time zone 'UTC')::date
group by customer_id
"""
_WINDOWS: Final = """
select customer_id, sum(own)::bigint as own, sum(credit)::bigint as credit, sum(settled)::bigint as settled,
  sum(frozen)::bigint as frozen, sum(billed - credit - settled - frozen)::bigint as open,
  sum(accrued)::bigint as accrued
from (
  select customer_id, billed_nano as billed, billed_nano - moved_nano - accrued_nano as own, credit_nano as credit,
    settled_nano as settled, frozen_nano as frozen, accrued_nano as accrued
  from public.billing_windows where window_start >= $1 and window_start < $2
  union all
  -- From before there were payers: by user, and of who paid then.
  select public.payer_of(user_id, window_start), nano - moved_nano, 0, 0, 0, frozen_nano - moved_nano, 0
  from public.stripe_windows where window_start >= $1 and window_start < $2
) w group by customer_id
"""
# An event of a window that a user filled before anybody paid is in nobody's windows, whoever it was sent for.
_EVENTS: Final = """
select case when customer_id is null then public.payer_of(user_id, window_start)
    when user_id is null then customer_id end as payer,
  id, identifier, customer_id, user_id, customer, meter, window_start, event_timestamp as at, value, state, reason,
  replaces, delivered_at, last_error, settled_ref
from public.stripe_meter_events
where window_start >= $1 and window_start < $2 or event_timestamp >= $1 and event_timestamp < $2 order by id
"""
_CUSTOMERS: Final = """
select c.id, c.stripe_customer_id, coalesce(c.name, '') as name,
  coalesce(sum(b.credit_due_nano), 0)::bigint as due
from public.customers c left join public.billing_carry b on b.customer_id = c.id group by c.id
"""


class WindowSums(NamedTuple):
    """Of a customer's windows, nano-USD."""

    own: int
    """Billed by rows since there are payers."""
    credit: int
    settled: int
    frozen: int
    open: int
    accrued: int
    """Taken over from users by decision; where nobody paid, what was taken from them, below 0."""


class KnownCustomer(NamedTuple):
    """A customer of ours."""

    id: UUID
    stripe_id: str | None
    name: str
    due: int


class MonthRead(NamedTuple):
    """All that was read."""

    since: datetime
    until: datetime
    ledger: dict[UUID | None, int]
    before: dict[UUID | None, int]
    """Of that, by rows of before there were payers."""
    windows: dict[UUID | None, WindowSums]
    events: Sequence[tuple[UUID | None, OutboxEvent]]
    """Each with the customer whose window it is of."""
    customers: dict[UUID, KnownCustomer]


class ReconcileStore(Table):
    """All methods raise DependencyDown("postgres")."""

    async def month(self, since: datetime, until: datetime) -> MonthRead:
        """A month: by `booked_at`, by the windows' beginnings, and by the times at Stripe."""
        async with self._connection() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
            ledger = await connection.fetch(_LEDGER, since, until)
            windows = await connection.fetch(_WINDOWS, since, until)
            events = await connection.fetch(_EVENTS, since, until)
            customers = await connection.fetch(_CUSTOMERS)
        return MonthRead(
            since,
            until,
            {row["customer_id"]: row["nano"] for row in ledger},
            {row["customer_id"]: row["before"] for row in ledger},
            {row["customer_id"]: _sums(row) for row in windows},
            [(row["payer"], OutboxEvent._make([*row.values()][1:])) for row in events],
            {row["id"]: KnownCustomer(*row.values()) for row in customers},
        )


def _sums(row: Any) -> WindowSums:
    return WindowSums(row["own"], row["credit"], row["settled"], row["frozen"], row["open"], row["accrued"])


def of_lines(lines: Sequence[BilledLine]) -> dict[str, list[BilledLine]]:
    """Lines by their customer at Stripe."""
    found: dict[str, list[BilledLine]] = {}
    for line in lines:
        found.setdefault(line.customer, []).append(line)
    return found
