"""Accruals of a month: what was earned in it and is on no invoice, and what was paid for and is not earned.

Usage is earned when the call completes (`completed_at`) and invoiced by the month in which it was booked. So the
windows of a month are corrected by what came late into it and what left it late. USD before tax; no journal entries.
"""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple

from gateway.config.settings import Settings
from gateway.kit.errors import OptionError
from gateway.kit.instants import Period, parse_period, rfc3339
from gateway.reports.replica import Say, reports_database
from gateway.stores.postgres import Table
from pricing.money import nano_text

EARNED: Final = "earned_not_invoiced"
PAID: Final = "invoiced_not_earned"
Kind = Literal["earned_not_invoiced", "invoiced_not_earned"]

_WINDOWS: Final = """
select case when w.customer_id is null then 'unbilled' else 'open' end as cause,
  coalesce(c.stripe_customer_id, '') as customer, coalesce(c.name, u.email, '') as name,
  sum(w.billed_nano - w.credit_nano - w.frozen_nano - w.settled_nano)::bigint as nano
from public.billing_windows w
left join public.customers c on c.id = w.customer_id left join public.users u on u.id = w.user_id
where w.open and w.window_start >= $1 and w.window_start < $2 group by 1, 2, 3
"""
# By the window that an amount is from, whatever month it was filed in. What a final invoice's period holds is invoiced.
_EVENTS: Final = """
select case when e.state = 'pending' then 'sending'
    when e.state in ('rejected', 'unknown', 'unreportable') then 'held' else 'delivered' end as cause,
  e.customer, coalesce(c.name, '') as name, sum(e.value)::bigint * 1000 as nano
from public.stripe_meter_events e left join public.customers c on c.stripe_customer_id = e.customer
where e.window_start >= $1 and e.window_start < $2
  and e.state in ('pending', 'rejected', 'unknown', 'unreportable', 'sent', 'duplicate')
  and not (e.state in ('sent', 'duplicate') and exists (
    select from public.stripe_invoices i cross join lateral jsonb_array_elements(i.lines) as l (line)
    where i.customer = e.customer and i.finalized_at is not null and i.status <> 'void'
      and l.line ->> 'meter' = e.meter and e.event_timestamp >= (l.line ->> 'since')::timestamptz
      and e.event_timestamp < (l.line ->> 'until')::timestamptz))
group by 1, 2, 3
"""
# Earned in the month and booked in a later one; and the other way round.
_LATE: Final = """
select case when u.completed_at < $1 then 'earned_before' else 'booked_later' end as cause,
  coalesce(c.stripe_customer_id, '') as customer, coalesce(c.name, a.email, '') as name,
  sum((case when u.completed_at < $1 then -1 else 1 end) * u.billed_usd * 1000000000)::bigint as nano
from public.late_rows l join public.openai_usage u on u.id = l.usage_id
join public.users a on a.id = u.user_id left join public.customers c on c.id = u.customer_id
where l.booked_at >= $1 and u.billed_usd <> 0
  and (u.completed_at < $1 and l.booked_at < $2 or u.completed_at >= $1 and u.completed_at < $2 and l.booked_at >= $2)
group by 1, 2, 3
"""
# At the end of the month, or now while it runs. What was used before there were payers has no day: it counts first.
_CREDIT: Final = """
select 'prepaid_credit' as cause, coalesce(u.stripe_customer_id, '') as customer, u.email as name,
  sum(moved.nano)::bigint as nano
from (
  select user_id, amount_usd * 1000000000 as nano from public.credit_entries where created_at < $1
  union all
  select user_id, -nano from public.credit_uses where day < ($1 at time zone 'UTC')::date
  union all
  select user_id, -used_before_nano from public.credit_balances
) moved join public.users u on u.id = moved.user_id
group by u.id having sum(moved.nano) > 0
"""
# What Stripe has sold; a promotion was never paid for.
_GRANTS: Final = """
select 'credit_grant ' || g.id as cause, g.customer, coalesce(c.name, '') as name,
  coalesce(g.available, g.amount) * 10000000 as nano
from public.stripe_credit_grants g left join public.customers c on c.stripe_customer_id = g.customer
where g.category = 'paid' and g.voided_at is null and g.currency = 'usd' and coalesce(g.available, g.amount) <> 0
  and (g.expires_at is null or g.expires_at > now())
"""
_NOW: Final = "select now()"


class Accrual(NamedTuple):
    """One amount."""

    kind: Kind
    cause: str
    customer: str
    name: str
    nano: int

    def to_json(self) -> dict[str, Any]:
        """Its fields, the amount as text."""
        return {
            "kind": self.kind,
            "cause": self.cause,
            "customer": self.customer,
            "name": self.name,
            "usd": nano_text(self.nano),
        }


class AccrualReport(NamedTuple):
    """A month's."""

    period: Period
    as_of: datetime
    rows: tuple[Accrual, ...]

    def total(self, kind: Kind) -> Decimal:
        """Of one kind, USD."""
        return Decimal(sum(row.nano for row in self.rows if row.kind == kind)).scaleb(-9)

    def to_json(self) -> dict[str, Any]:
        """Everything."""
        return {
            "month": f"{self.period.since:%Y-%m}",
            "as_of": rfc3339(self.as_of),
            "currency": "usd",
            "earned_not_invoiced_usd": f"{self.total('earned_not_invoiced'):.9f}",
            "invoiced_not_earned_usd": f"{self.total('invoiced_not_earned'):.9f}",
            "rows": [row.to_json() for row in self.rows],
        }


class Accruals(Table):
    """All methods raise DependencyDown("postgres")."""

    async def read(self, period: Period) -> AccrualReport:
        """From one snapshot. What is left of credit is that of the month's end; of Stripe's grants, as of now."""
        found: list[Accrual] = []
        async with self._connection() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
            as_of: datetime = await connection.fetchval(_NOW)
            for query in (_WINDOWS, _EVENTS, _LATE):
                found += _accruals("earned_not_invoiced", await connection.fetch(query, *period))
            found += _accruals("invoiced_not_earned", await connection.fetch(_CREDIT, period.until))
            found += _accruals("invoiced_not_earned", await connection.fetch(_GRANTS))
        return AccrualReport(period, as_of, tuple(sorted(found)))


async def query_accruals(settings: Settings, *, during: str, now: datetime, say: Say) -> AccrualReport:
    """Of a month, UTC. Raises OptionError where it is none, ConfigError, DependencyDown."""
    period = parse_period(during, "--during", now)
    if period.since.day != 1 or (period.until - period.since).days < 28:
        raise OptionError(f"--during: {during!r} is not a month (2026-10, this-month, last-month)")
    async with reports_database(settings, "accruals are read from PostgreSQL", say) as pool:
        return await Accruals(pool).read(period)


def _accruals(kind: Kind, rows: Sequence[Any]) -> list[Accrual]:
    return [Accrual(kind, row["cause"], row["customer"], row["name"], int(row["nano"])) for row in rows if row["nano"]]
