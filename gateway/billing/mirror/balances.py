"""How much credit customers of mode `grants` have left at Stripe, read again and again, because it bounds their calls.

Stripe draws on credit when an invoice becomes final, never while usage comes in (its docs on billing credits). So a
balance is kept together with the instant until which usage is invoiced: what may still be used is the balance, less
what was used since then, which is known here to the nano-dollar (limits/spending.py).
"""

import asyncio
from datetime import UTC, datetime
from typing import Final, NamedTuple

import structlog

from gateway.billing.mirror.read import StripeReader
from gateway.kit.errors import ConfigError, DependencyDown
from gateway.stores.postgres import Table

LOOK_EVERY_S: Final = 5.0
"""Seconds between two looks for balances that are due."""
READ_MAX: Final = 25
"""Balances of one look: three questions each are 15 a second for a worker, and Stripe takes 100 of a live key."""
AT_ONCE: Final = 4
TRIES: Final = 3
NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""Until then usage is invoiced where no invoice is final yet."""
_log: Final = structlog.get_logger("gateway.billing")

# Customers whose balance is due, the longest ago first; whoever gets one here reads it, and no other worker does.
_CLAIM: Final = """
with wanted as (
  select c.id from public.customers c left join public.stripe_credit_balances b on b.customer_id = c.id
  where c.mode = 'grants' and c.stripe_customer_id is not null and coalesce(b.due_at, '-infinity') <= now()
  order by coalesce(b.due_at, '-infinity'), c.id limit $2
)
insert into public.stripe_credit_balances as b (customer_id, due_at)
select id, now() + $1 * interval '1 second' from wanted order by id
on conflict (customer_id) do update set due_at = excluded.due_at where b.due_at <= now()
returning b.customer_id::text as id, clock_timestamp() as asked_at,
  (select c.stripe_customer_id from public.customers c where c.id = b.customer_id) as customer
"""
_KEEP: Final = """
update public.stripe_credit_balances set available = $2, invoiced_until = $3, asked_at = $4
where customer_id = $1::uuid and coalesce(asked_at, '-infinity') <= $4
"""
_OLD: Final = """
select c.stripe_customer_id as customer, b.asked_at
from public.customers c left join public.stripe_credit_balances b on b.customer_id = c.id
where c.mode = 'grants' and c.stripe_customer_id is not null and coalesce(b.asked_at, '-infinity') < $1
order by b.asked_at nulls first, customer
"""


class ClaimedBalance(NamedTuple):
    """One that is to be read now."""

    customer_id: str
    asked_at: datetime
    customer: str
    """Stripe's id."""


class BalanceStore(Table):
    """All of it over one pool. Every method raises DependencyDown("postgres")."""

    async def claim(self, every_s: float, most: int) -> list[ClaimedBalance]:
        """Balances that are due; they are due again in `every_s` seconds."""
        return [ClaimedBalance(*row.values()) for row in await self._rows(_CLAIM, every_s, most)]

    async def keep(self, of: ClaimedBalance, cents: int, invoiced_until: datetime) -> None:
        """Unless a later answer is kept."""
        await self._rows(_KEEP, of.customer_id, cents, invoiced_until, of.asked_at)

    async def older_than(self, at: datetime) -> list[tuple[str, datetime | None]]:
        """Stripe's ids of customers whose balance was last read before `at`, or never."""
        return [(row["customer"], row["asked_at"]) for row in await self._rows(_OLD, at)]


class CreditBalances:
    """One per worker that has Stripe's key; any number may run."""

    def __init__(self, reader: StripeReader, store: BalanceStore, *, meter: str, every_s: float) -> None:
        self._reader: Final = reader
        self._store: Final = store
        self._meter: Final = meter
        self._every_s: Final = every_s

    async def step_once(self) -> int:
        """Reads what is due; how many. Raises DependencyDown when PostgreSQL is away."""
        claimed = await self._store.claim(self._every_s, READ_MAX)
        room = asyncio.Semaphore(AT_ONCE)

        async def read(one: ClaimedBalance) -> bool:
            async with room:
                return await self._read(one)

        return sum(await asyncio.gather(*(read(one) for one in claimed)))

    async def _read(self, one: ClaimedBalance) -> bool:
        """Whether it was read; where it was not, the one that is kept stays, and it is tried again when it is due."""
        try:
            found = await read_balance(self._reader, one.customer, self._meter)
        except (ConfigError, DependencyDown) as error:
            if isinstance(error, DependencyDown) and error.what != "stripe":
                raise
            _log.warning("credit at stripe cannot be read", customer=one.customer, detail=str(error))
            return False
        await self._store.keep(one, *found)
        return True


async def read_balance(reader: StripeReader, customer: str, meter: str) -> tuple[int, datetime]:
    """Cents of USD that are left, and until when usage is invoiced, of one moment.

    Raises ConfigError, DependencyDown.
    """
    until = await reader.invoiced_until(customer, meter) or NEVER
    for _ in range(TRIES):
        cents = await reader.credit_left(customer)
        before, until = until, await reader.invoiced_until(customer, meter) or NEVER
        if before == until:
            return cents, until
    raise DependencyDown("stripe", f"invoices of {customer} become final faster than its credit can be read")
