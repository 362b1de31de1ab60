"""Budgets and prepaid credit in Postgres: what they are, and what the ledger says was spent of them.

Must not decide whether a call may run: that is the limiter's, over counters made from these sums.
"""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

from gateway.limits.budgets import Budget, Window
from gateway.stores.postgres import Table

_SCOPE: Final = """user_id = $1::uuid and ($2::uuid is null or api_key_id = $2)
    and ($4::text is null or model = $4 or (starts_with(model, $4)
      and substr(model, length($4) + 1) ~ '^-[0-9]{4}-[0-9]{2}-[0-9]{2}$'))"""
_MEETING: Final = "($3::uuid is null or meeting_id = $3)"
# The sum of a window and which of some events it contains, in one snapshot. From sums that are always equal to their
# rows: whole months that are added up, so that what a budget costs does not grow with its age, and whole hours before
# and after them; hours alone where a meeting is asked for: none lasts. The rest of a first hour comes from the rows.
_SPENT: Final = f"""
with edge as (
  -- The first whole hour that begins at $5 or later; hours are those of UTC, whatever the session's time zone is.
  select date_bin('1 hour', $5::timestamptz + interval '1 hour' - interval '1 microsecond', timestamptz 'epoch') as hour
),
months as (
  select min(since) as since, max(until) as until from public.summed_months, edge
  where $3::uuid is null and since >= edge.hour and ($6::timestamptz is null or until <= $6)
),
whole as (
  select coalesce(sum(nano), 0) as nano from (
    select cost_usd * 1000000000 as nano from public.usage_hourly, edge, months
    where {_SCOPE} and {_MEETING} and usage_hourly.hour >= edge.hour
      and usage_hourly.hour < least(coalesce(months.since, 'infinity'), coalesce($6::timestamptz, 'infinity'))
    union all
    select cost_nano from public.usage_monthly, months
    where {_SCOPE} and month >= (months.since at time zone 'UTC')::date
      and month < (months.until at time zone 'UTC')::date
    union all
    select cost_usd * 1000000000 from public.usage_hourly, months
    where {_SCOPE} and {_MEETING} and usage_hourly.hour >= months.until
      and usage_hourly.hour < coalesce($6::timestamptz, 'infinity')
  ) parts
),
part as (
  select coalesce(sum(cost_usd), 0) * 1000000000 as nano from public.openai_usage, edge
  where {_SCOPE} and {_MEETING} and created_at >= $5::timestamptz and created_at < edge.hour
)
select (whole.nano + part.nano)::bigint as nano,
  array(select id::text from public.openai_usage where id = any($7::uuid[])) as contained,
  array(select distinct adjusts::text from public.openai_usage where adjusts = any($8::uuid[])) as corrected
from whole, part
"""  # noqa: S608 - constants of this file
# The same of prepaid credit, which the ledger's own statement uses up row by row: what it could not pay is owed
# elsewhere, and must not count against a later entry.
_USED: Final = """
select coalesce((
    select coalesce(b.used_before_nano, 0) + b.used_nano from public.credit_balances b where b.user_id = $1::uuid
  ), 0)::bigint as nano,
  array(select id::text from public.openai_usage where id = any($2::uuid[])) as contained,
  array(select distinct adjusts::text from public.openai_usage where adjusts = any($3::uuid[])) as corrected
"""
# The same of credit at Stripe: what the customer ($1) has used that no final invoice has drawn on yet.
_UNINVOICED: Final = """
select public.uninvoiced_nano($1::uuid, $4::timestamptz) as nano,
  array(select id::text from public.openai_usage where id = any($2::uuid[])) as contained,
  array(select distinct adjusts::text from public.openai_usage where adjusts = any($3::uuid[])) as corrected
"""
_IS_CURRENT: Final = """
select exists (
  select from public.stripe_credit_balances where customer_id = $1::uuid and invoiced_until = $2::timestamptz
)
"""
_BUDGETS: Final = """
select b.id::text as id, b.user_id::text as user_id, u.email, b.api_key_id::text as api_key_id,
  b.meeting_id::text as meeting_id, b.model, b.period, b.limit_usd, b.is_hard, b.is_active, b.created_at
from public.budgets b join public.users u on u.id = b.user_id
where ($1::uuid is null or b.user_id = $1) and ($2 or b.is_active) order by u.email, b.created_at, b.id
"""
_SET: Final = """
insert into public.budgets (user_id, api_key_id, meeting_id, model, period, is_hard, limit_usd)
select $1::uuid, $2::uuid, $3::uuid, $4, $5, $6, $7::numeric
where ($2::uuid is null or exists (select from public.api_keys where id = $2 and user_id = $1))
  and ($3::uuid is null or exists (select from public.meetings where id = $3 and user_id = $1))
on conflict on constraint budgets_key do update set limit_usd = excluded.limit_usd, is_active = true
returning id::text
"""
_SAME: Final = """
select limit_usd, is_active from public.budgets
where user_id = $1::uuid and api_key_id is not distinct from $2::uuid and meeting_id is not distinct from $3::uuid
  and model is not distinct from $4 and period = $5 and is_hard = $6 for update
"""
_END: Final = """
with old as (select id, is_active from public.budgets where id = $1::uuid for update)
update public.budgets b set is_active = false from old where b.id = old.id returning old.is_active
"""
_ADD_CREDIT: Final = """
insert into public.credit_entries (user_id, amount_usd, note, reference) values ($1::uuid, $2::numeric, $3, $4)
on conflict (reference) do nothing returning id::text
"""
_WITH_REFERENCE: Final = """
select c.user_id::text as user_id, u.email, c.amount_usd from public.credit_entries c
join public.users u on u.id = c.user_id where c.reference = $1
"""
_LEFT: Final = "select left_nano * 0.000000001 as usd from public.credit_balances where user_id = $1::uuid"
# Whether the credit of a user's payer of today lives at Stripe; a trigger refuses an entry then.
_HAS_GRANTS: Final = """
select exists (select from public.customers c where c.id = public.payer_of($1::uuid, now()) and c.mode = 'grants')
"""
_CREDITS: Final = """
select id::text as id, amount_usd, note, reference, created_at from public.credit_entries
where user_id = $1::uuid order by created_at, id
"""


class BudgetRow(NamedTuple):
    """A budget as it is listed."""

    id: str
    user_id: str
    email: str
    api_key_id: str | None
    meeting_id: str | None
    model: str | None
    period: str
    limit_usd: Any
    """Decimal, USD."""
    is_hard: bool
    is_active: bool
    created_at: datetime


class CreditEntry(NamedTuple):
    """Money that a user has paid in advance, or that was taken back."""

    id: str
    amount_usd: Any
    """Decimal, USD."""
    note: str | None
    reference: str | None
    created_at: datetime


class Spending(Table):
    """All of it over one pool. Every method raises DependencyDown("postgres")."""

    async def read_spent(
        self, window: Window, events: Sequence[str] = (), kept: Sequence[str] = ()
    ) -> tuple[int, list[str], list[str]]:
        """Nano-USD spent within a period, those of `events` (UUIDs) that the ledger has, and those of `kept` for which
        it has a correction, at one instant."""
        budget = window.budget
        scope = (budget.user_id, budget.api_key_id, budget.meeting_id, budget.model)
        if (customer := budget.grants_of) is not None:
            (row,) = await self._rows(_UNINVOICED, customer, list(events), list(kept), window.start)
        elif budget.prepaid:
            (row,) = await self._rows(_USED, budget.user_id, list(events), list(kept))
        else:
            (row,) = await self._rows(_SPENT, *scope, window.start, window.end, list(events), list(kept))
        return int(row["nano"]), list(row["contained"]), list(row["corrected"])

    async def is_current(self, window: Window) -> bool:
        """Whether calls may still count in this period; one of credit at Stripe is replaced with each final invoice."""
        customer = window.budget.grants_of
        return customer is None or bool((await self._rows(_IS_CURRENT, customer, window.start))[0][0])

    async def budgets(self, user_id: str | None, *, inactive_too: bool) -> list[BudgetRow]:
        """Budgets of one user, or all."""
        return [BudgetRow(*row.values()) for row in await self._rows(_BUDGETS, user_id, inactive_too)]

    async def set_budget(self, budget: Budget, limit_usd: Any) -> str | None:
        """Makes a budget, or changes the limit of the one with this scope, and returns its id; None when the key or the
        meeting is not the user's. `limit_usd` is a Decimal; the budget's own `id`, `limit_nano`, `since` do not count.
        """
        scope = (budget.user_id, budget.api_key_id, budget.meeting_id, budget.model, budget.period, budget.hard)
        rows = await self._rows(_SET, *scope, limit_usd)
        return str(rows[0][0]) if rows else None

    async def same_budget(self, budget: Budget) -> dict[str, Any] | None:
        """The limit of the budget with this scope and period, and whether it is in use; None when there is none."""
        scope = (budget.user_id, budget.api_key_id, budget.meeting_id, budget.model, budget.period, budget.hard)
        rows = await self._rows(_SAME, *scope)
        return dict(rows[0]) if rows else None

    async def end_budget(self, budget_id: str) -> bool | None:
        """Takes a budget (a UUID) out of use: whether it was in use; None when there is none."""
        rows = await self._rows(_END, budget_id)
        return bool(rows[0][0]) if rows else None

    async def add_credit(self, user_id: str, amount_usd: Any, note: str | None, reference: str | None) -> str | None:
        """A credit entry's id; None when its reference was used before. `amount_usd` is a Decimal, negative to take
        back."""
        rows = await self._rows(_ADD_CREDIT, user_id, amount_usd, note, reference)
        return str(rows[0][0]) if rows else None

    async def with_reference(self, reference: str) -> tuple[str, str, Any]:
        """Of the entry with a reference: the user's id and address, and the amount, a Decimal of USD."""
        (row,) = await self._rows(_WITH_REFERENCE, reference)
        return row["user_id"], row["email"], row["amount_usd"]

    async def has_grants(self, user_id: str) -> bool:
        """Whether a user's customer has its credit at Stripe, and so can have none here."""
        return bool((await self._rows(_HAS_GRANTS, user_id))[0][0])

    async def credit_left(self, user_id: str) -> Any:
        """What is left of a user's entries: a Decimal, USD. Below 0 where more was used before there were payers, or an
        entry took back what was used."""
        rows = await self._rows(_LEFT, user_id)
        return rows[0]["usd"] if rows else Decimal(0)

    async def credits(self, user_id: str) -> list[CreditEntry]:
        """A user's entries, oldest first."""
        return [CreditEntry(*row.values()) for row in await self._rows(_CREDITS, user_id)]
