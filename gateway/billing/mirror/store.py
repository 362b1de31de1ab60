"""Stripe's objects in PostgreSQL. A row gives way only to what Stripe was asked for later; `asked_at` is the database's
clock, taken before Stripe is asked, so that the order is the same for all workers.
"""

import json
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from gateway.billing.mirror.rows import CreditGrant, Invoice, StripeCustomer, SubscriptionItem
from gateway.stores.postgres import Table

Kind = Literal["customer", "subscription", "invoice", "credit_grant"]
FRESH: Final = timedelta(minutes=10)
"""How much later than an event its object must have been read to contain it for certain, whatever the clocks say."""

_NOW: Final = "select clock_timestamp()"
_ASKED: Final[dict[Kind, str]] = {
    "customer": "select max(asked_at) from public.stripe_customers where id = $1",
    "subscription": "select max(asked_at) from public.stripe_subscriptions where id = $1",
    "invoice": "select max(asked_at) from public.stripe_invoices where id = $1",
    "credit_grant": "select max(asked_at) from public.stripe_credit_grants where id = $1",
}
_CUSTOMER: Final = """
insert into public.stripe_customers as t (id, is_deleted, currency, is_live, asked_at, seen_event)
values ($1, $2, $3, $4, $5, $6)
on conflict (id) do update set is_deleted = excluded.is_deleted, currency = excluded.currency,
  is_live = excluded.is_live, asked_at = excluded.asked_at, seen_event = excluded.seen_event
where t.asked_at <= excluded.asked_at
"""
_INVOICE: Final = """
insert into public.stripe_invoices as t (id, number, customer, subscription, status, currency, billing_reason,
  period_start, period_end, subtotal, total, credited, created_at, finalized_at, lines, is_live, asked_at, seen_event)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15::jsonb, $16, $17, $18)
on conflict (id) do update set number = excluded.number, customer = excluded.customer,
  subscription = excluded.subscription, status = excluded.status, currency = excluded.currency,
  billing_reason = excluded.billing_reason, period_start = excluded.period_start, period_end = excluded.period_end,
  subtotal = excluded.subtotal, total = excluded.total, credited = excluded.credited,
  created_at = excluded.created_at, finalized_at = excluded.finalized_at, lines = excluded.lines,
  is_live = excluded.is_live, asked_at = excluded.asked_at, seen_event = excluded.seen_event
where t.asked_at <= excluded.asked_at
"""
_INVOICE_GONE: Final = """
update public.stripe_invoices set status = 'deleted', asked_at = $2, seen_event = $3 where id = $1 and asked_at <= $2
"""
_GRANT: Final = """
insert into public.stripe_credit_grants as t (id, customer, category, currency, amount, available, effective_at,
  expires_at, voided_at, created_at, is_live, asked_at, seen_event)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
on conflict (id) do update set amount = excluded.amount, available = excluded.available,
  effective_at = excluded.effective_at, expires_at = excluded.expires_at, voided_at = excluded.voided_at,
  asked_at = excluded.asked_at, seen_event = excluded.seen_event
where t.asked_at <= excluded.asked_at
"""
_LOCK: Final = "select pg_advisory_xact_lock(hashtextextended('stripe ' || $1, 0))"
# Whether `gateway stripe sync` has ever found it (seen_event is NULL) stays: so it is known that all were read once.
_ITEM: Final = """
insert into public.stripe_subscriptions as t (item, id, customer, price, meter, meter_id, currency, status, started_at,
  anchor, period_start, period_end, cancel_at, ended_at, is_live, asked_at, seen_event)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
on conflict (item, period_start) do update set customer = excluded.customer, price = excluded.price,
  meter = excluded.meter, meter_id = excluded.meter_id, anchor = excluded.anchor, period_end = excluded.period_end,
  removed_at = null, asked_at = excluded.asked_at,
  seen_event = case when t.seen_event is not null then excluded.seen_event end
"""
# A cycle that was begun anew cuts the period before it; the state is that of the subscription, in every period.
_EARLIER: Final = """
update public.stripe_subscriptions set period_end = case when period_start < $2 then least(period_end, $2)
    else period_end end, status = $3, cancel_at = $4, ended_at = $5
where item = $1 and period_start <= $2 and (period_start < $2 or (status, cancel_at, ended_at) is distinct from
  ($3, $4::timestamptz, $5::timestamptz))
"""
_REMOVED: Final = """
update public.stripe_subscriptions set removed_at = $3
where id = $1 and item <> all($2::text[]) and removed_at is null
"""
_UNSETTLED: Final = "select id from public.stripe_invoices where status in ('draft', 'open') order by id"


class MirrorStore(Table):
    """All of it over one pool. Every method raises DependencyDown("postgres")."""

    async def now(self) -> datetime:
        """The instant at which Stripe is asked."""
        async with self._connection() as connection:
            at: datetime = await connection.fetchval(_NOW)
            return at

    async def contains(self, kind: Kind, object_id: str, occurred_at: datetime | None) -> bool:
        """Whether what is kept was read so long after an event that it must contain it."""
        if occurred_at is None:
            return False
        async with self._connection() as connection:
            asked: datetime | None = await connection.fetchval(_ASKED[kind], object_id)
        return asked is not None and asked > occurred_at + FRESH

    async def keep_customer(self, found: StripeCustomer, asked_at: datetime, event: str | None) -> None:
        """Unless a later answer is kept."""
        async with self._connection() as connection:
            await connection.execute(_CUSTOMER, *found, asked_at, event)

    async def keep_subscription(
        self, subscription_id: str, items: list[SubscriptionItem], asked_at: datetime, event: str | None
    ) -> None:
        """Its items' present periods beside the earlier ones, unless a later answer is kept."""
        async with self._connection() as connection, connection.transaction():
            await connection.execute(_LOCK, subscription_id)
            last = await connection.fetchval(_ASKED["subscription"], subscription_id)
            if last is not None and last > asked_at:
                return
            for item in items:
                await connection.execute(_ITEM, *item, asked_at, event)
                about = (item.item, item.period_start, item.status, item.cancel_at, item.ended_at)
                await connection.execute(_EARLIER, *about)
            await connection.execute(_REMOVED, subscription_id, [item.item for item in items], asked_at)

    async def keep_invoice(self, found: Invoice, asked_at: datetime, event: str | None) -> None:
        """Unless a later answer is kept."""
        lines = json.dumps([_plain(line._asdict()) for line in found.lines])
        values = found._replace(lines=())
        given = [lines if name == "lines" else value for name, value in values._asdict().items()]
        async with self._connection() as connection:
            await connection.execute(_INVOICE, *given, asked_at, event)

    async def drop_invoice(self, invoice_id: str, asked_at: datetime, event: str | None) -> None:
        """A draft that Stripe no longer has; the row stays."""
        async with self._connection() as connection:
            await connection.execute(_INVOICE_GONE, invoice_id, asked_at, event)

    async def keep_grant(self, found: CreditGrant, asked_at: datetime, event: str | None) -> None:
        """Unless a later answer is kept."""
        async with self._connection() as connection:
            await connection.execute(_GRANT, *found, asked_at, event)

    async def unsettled_invoices(self) -> list[str]:
        """The ids of those that will still change."""
        async with self._connection() as connection:
            return [row[0] for row in await connection.fetch(_UNSETTLED)]


def _plain(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in line.items()}
