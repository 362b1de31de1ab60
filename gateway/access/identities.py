"""The owner of a key in PostgreSQL: the only read that a call waits for during admission."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from gateway.kit.ids import is_uuid
from gateway.stores.postgres import Connections, Table
from pricing.readers.text import storable

# Whose key this is: by the key's own row, else by the user id that Unkey holds.
_IDENTITY: Final = """
with key as (
  select id, user_id, is_active and (expires_at is null or expires_at > now()) as is_active, enabled_at, expires_at
  from public.api_keys where unkey_key_id = $2
)
select u.id::text as user_id, u.is_active,
  (select k.id::text from key k where k.user_id = u.id) as api_key_id,
  (select k.is_active from key k) as key_is_active,
  (select k.enabled_at from key k) as key_enabled_at,
  (select k.expires_at from key k) as key_expires_at,
  u.stripe_customer_id,
  -- What bounds their spending, as limits/budgets reads it; credit is a budget whose limit is what was paid, or what
  -- is left at Stripe where the customer pays with grants; no other customer's calls are bounded by credit.
  (select coalesce(jsonb_agg(to_jsonb(bound) || jsonb_build_object('since',
    to_char(bound.since at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))), '[]')::text from (
    select b.id::text as id, b.user_id, (least(b.limit_usd, 1000000) * 1000000000)::bigint as limit_nano, b.period,
      b.is_hard as hard, b.created_at as since, b.api_key_id, b.meeting_id, b.model, 'cost_usd' as counts
    from public.budgets b
    where b.user_id = u.id and b.is_active
      and (b.api_key_id is null or b.api_key_id = (select k.id from key k where k.user_id = u.id))
    union all
    select 'credit:' || c.user_id, c.user_id, least(c.granted_nano, 1000000 * 1000000000::bigint), 'total', true,
      c.since, null, null, null, 'billed_usd'
    from public.credit_balances c where c.user_id = u.id and coalesce(payer.mode, 'prepaid') = 'prepaid'
    union all
    -- One for all users of the customer; it begins anew with each invoice, because that draws on the balance.
    select 'grants:' || g.customer_id, u.id, least(g.available, 1000000 * 100) * 10000000::bigint, 'total', true,
      g.invoiced_until, null, null, null, 'billed_usd'
    from public.stripe_credit_balances g
    where g.customer_id = payer.id and payer.mode = 'grants' and g.asked_at is not null
  ) bound) as budgets
from public.users u
left join lateral (
  select c.id, c.mode from public.user_customers p join public.customers c on c.id = p.customer_id
  where p.user_id = u.id and p.valid_from <= now() and (p.valid_to is null or p.valid_to > now()) limit 1
) payer on true
where u.id = coalesce((select k.user_id from key k), $1::uuid)
"""


@dataclass(slots=True)
class KeyOwner:
    """Whose key it is. `key_is_active` is None for a key that has no row of its own."""

    user_id: str
    is_active: bool
    api_key_id: str | None
    key_is_active: bool | None
    key_enabled_at: datetime | None
    """When a command last let it in again."""
    key_expires_at: datetime | None
    stripe_customer_id: str | None
    budgets: str
    """JSON: a list of limits/budgets.Budget."""


class KeyOwners(Table):
    """Raises DependencyDown("postgres"), after two seconds at the latest."""

    def __init__(self, pool: Connections, *, look_first: Callable[[], Awaitable[None]] | None = None) -> None:
        """`look_first`: what must be known of PostgreSQL before any call is let in. It raises DependencyDown too."""
        super().__init__(pool)
        self._look_first: Final = look_first

    async def identity(self, external_id: str | None, unkey_key_id: str) -> KeyOwner | None:
        """The user behind a key, by the key's row or else by Unkey's externalId; None when there is none.

        An externalId that is not an id of ours is another system's, and says nothing here.
        """
        if self._look_first is not None:
            await self._look_first()
        ours = external_id if external_id is not None and is_uuid(external_id) else None
        rows = await self._look_up(_IDENTITY, ours, storable(unkey_key_id))
        return KeyOwner(*rows[0].values()) if rows else None
