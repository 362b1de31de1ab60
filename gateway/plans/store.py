"""Plans and the usage that they are shown with, for administration. Holds no rule; never on the hot path."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

import msgspec

from gateway.kit.ids import is_uuid
from gateway.kit.instants import Period
from gateway.plans.preview import Used
from gateway.stores.postgres import Table
from gateway.usage.plan_store import plan_of
from gateway.usage.plans import PlanVersion, digest_of, priced_tier
from pricing import Line

_ROWS: Final = """
select name, version, kind, rates::text as rates, valid_from, valid_to, user_id::text as user_id,
  customer_id::text as customer_id, api_key_id::text as api_key_id, model, endpoint, digest, made_at, made_by, ended_at,
  ended_by
from public.plans where ($1::text is null or name = $1) order by name, version
"""
# Versions in the scope of $1…$5 that hold at some time from $6 on, before $7.
_HOLDING: Final = """
select name, version from public.plans
where (api_key_id, user_id, customer_id, model, endpoint) is not distinct from ($1::uuid, $2::uuid, $3::uuid, $4, $5)
  and greatest(valid_from, $6::timestamptz)
    < least(coalesce(valid_to, 'infinity'), coalesce($7, 'infinity'::timestamptz))
order by valid_from
"""
_INSERT: Final = """
insert into public.plans (name, version, api_key_id, user_id, customer_id, model, endpoint, kind, rates, valid_from,
  valid_to, digest, made_by)
values ($1, $2, $3::uuid, $4::uuid, $5::uuid, $6, $7, $8, $9::jsonb, $10, $11, $12, $13)
"""
_END: Final = """
update public.plans set valid_to = $3, ended_by = $4 where name = $1 and version = $2 and valid_to is null returning 1
"""
_CUSTOMER: Final = "select id::text from public.customers where id = $1::uuid or stripe_customer_id = $2"
# What was used in a period, as far as plans may treat it differently; amounts in USD.
_USED: Final = """
select h.user_id::text as user_id, u.email, h.api_key_id::text as api_key_id, h.model, h.endpoint, null as tier,
  null as unit,
  sum(h.calls)::bigint as calls, 0::numeric as quantity, sum(h.cost_usd) as usd, sum(h.billed_usd) as billed_usd
from public.usage_hourly h join public.users u on u.id = h.user_id
where h.hour >= $1 and h.hour < $2 group by 1, 2, 3, 4, 5
"""
# The same by unit of the price lines, for a list of prices; what has no lines has the unit NULL.
_USED_UNITS: Final = """
select r.user_id::text as user_id, u.email, r.api_key_id::text as api_key_id, r.model, r.endpoint,
  coalesce(r.metadata -> 'billable' ->> 'service_tier', r.service_tier) as tier, l.unit,
  count(*) filter (where r.adjusts is null and l.number = 1)::bigint as calls, sum(l.quantity) as quantity,
  sum(l.usd) as usd, sum(case when l.number = 1 then r.billed_usd else 0 end) as billed_usd
from public.openai_usage r join public.users u on u.id = r.user_id,
  lateral (
    select x ->> 'unit' as unit, (x ->> 'quantity')::numeric as quantity, (x ->> 'usd')::numeric as usd, number
    from jsonb_array_elements(r.cost_lines) with ordinality as line (x, number)
    union all
    select null, 0, r.cost_usd, 1 where r.cost_lines = '[]'
  ) l
where r.created_at >= $1 and r.created_at < $2 and r.cost_usd is not null group by 1, 2, 3, 4, 5, 6, 7
"""
_ROW: Final = """
select id::text as id, user_id::text as user_id, api_key_id::text as api_key_id, model, endpoint, evidence, started_at,
  cost_usd, billed_usd, plan_version, cost_lines::text as lines, metadata ? 'not_billed' as is_not_billed, service_tier,
  (metadata->'billable')::text as billable, metadata->>'service_tier_asked' as tier_asked
from public.openai_usage where id = $1::uuid
"""


class PlanRow(NamedTuple):
    """One version, and who made and ended it."""

    plan: PlanVersion
    digest: str
    made_at: datetime
    made_by: str
    ended_at: datetime | None
    ended_by: str | None


class BilledRow(NamedTuple):
    """A row of the ledger, as far as its amount goes."""

    id: str
    user_id: str
    api_key_id: str | None
    model: str
    endpoint: str
    evidence: str
    started_at: datetime
    cost_usd: Decimal | None
    billed_usd: Decimal | None
    plan_version: str | None
    lines: tuple[Line, ...]
    is_not_billed: bool
    tier: str | None
    """The service tier that it was priced by."""

    @property
    def call(self) -> dict[str, Any]:
        """What `PlanBook.resolve` asks for."""
        names = ("user_id", "api_key_id", "model", "endpoint")
        return {name: getattr(self, name) for name in names}


class Plans(Table):
    """All of it over one pool, or in one transaction. Every method raises DependencyDown("postgres")."""

    async def lock(self) -> None:
        """Nobody else changes a plan until this transaction ends."""
        await self._rows("select number from public.plan_changes for update")

    async def now(self) -> datetime:
        """By the database's clock, which decides how far ahead a start is."""
        now: datetime = (await self._rows("select clock_timestamp()"))[0][0]
        return now

    async def rows(self, name: str | None = None) -> list[PlanRow]:
        """All versions of one plan, or of all."""
        return [_plan_row(dict(row)) for row in await self._rows(_ROWS, name)]

    async def holding(self, plan: PlanVersion) -> Sequence[tuple[str, int]]:
        """The versions that hold in its scope while it does."""
        return [(row[0], row[1]) for row in await self._rows(_HOLDING, *_scope(plan), plan.valid_from, plan.valid_to)]

    async def insert(self, plan: PlanVersion, by: str) -> None:
        """A new version."""
        rates = msgspec.json.encode(plan.rates).decode()
        what = (plan.kind, rates, plan.valid_from, plan.valid_to, digest_of(plan), by)
        await self._rows(_INSERT, plan.name, plan.version, *_scope(plan), *what)

    async def end(self, name: str, version: int, at: datetime, by: str) -> bool:
        """Sets the end of a version; False where it has one."""
        return bool(await self._rows(_END, name, version, at, by))

    async def customer(self, reference: str) -> str | None:
        """The customer whose id, ours (a UUID) or Stripe's, this is."""
        rows = await self._rows(_CUSTOMER, reference if is_uuid(reference) else None, reference)
        return str(rows[0][0]) if rows else None

    async def used(self, during: Period, *, by_unit: bool) -> list[Used]:
        """What was used in a period. By unit it reads the ledger's rows, else the roll-up."""
        return [Used(*row.values()) for row in await self._rows(_USED_UNITS if by_unit else _USED, *during)]

    async def row(self, row_id: str) -> BilledRow | None:
        """A row of the ledger (a UUID)."""
        rows = await self._rows(_ROW, row_id)
        if not rows:
            return None
        fields = dict(rows[0])
        billable = fields.pop("billable")
        known = None if billable is None else msgspec.json.decode(billable, type=dict[str, Any] | None)
        tier = priced_tier(fields.pop("service_tier"), known, fields.pop("tier_asked"))
        return BilledRow(**{**fields, "lines": msgspec.json.decode(fields["lines"], type=tuple[Line, ...])}, tier=tier)


def _scope(plan: PlanVersion) -> tuple[str | None, ...]:
    return plan.api_key_id, plan.user_id, plan.customer_id, plan.model, plan.endpoint


def _plan_row(fields: dict[str, Any]) -> PlanRow:
    about = [fields.pop(name) for name in PlanRow._fields[1:]]
    return PlanRow(plan_of(fields), *about)
