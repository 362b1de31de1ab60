"""Who pays for a user from when to when, and what a user has accrued while nobody did. SQL only; decides nothing."""

from datetime import datetime
from typing import Any, Final, NamedTuple

from gateway.kit.ids import is_uuid
from gateway.stores.postgres import Table

_LOCK: Final = """
select clock_timestamp() as at, stripe_customer_id from public.users where id = $1::uuid for no key update
"""
_PERIOD: Final = """
select p.id::text as id, p.customer_id::text as customer_id, p.valid_from > $2 as is_ahead
from public.user_customers p
where p.user_id = $1::uuid and (p.valid_to is null or p.valid_to > $2)
order by p.valid_from limit 1
"""
_END: Final = "update public.user_customers set valid_to = $2 where id = $1::uuid"
_BEGIN: Final = """
insert into public.user_customers (user_id, customer_id, valid_from, accrued, made_by)
values ($1::uuid, $2::uuid, $3, $4, $5)
"""
_FIELDS: Final = "id::text as id, name, stripe_customer_id, currency, mode, tax_note, created_at"
# An update that changes nothing, so that one that another command has made meanwhile is returned too.
_FIND_OR_MAKE: Final = f"""
insert into public.customers (stripe_customer_id, mode) values ($1, $2)
on conflict (stripe_customer_id) do update set stripe_customer_id = excluded.stripe_customer_id returning {_FIELDS}
"""  # noqa: S608 - names
# An id goes before a name: a customer may be called as another one's id is.
_FIND: Final = f"""
with by_id as (select {_FIELDS} from public.customers where id = $1::uuid or stripe_customer_id = $2)
select * from by_id
union all
(select {_FIELDS} from public.customers where name = $2 and not exists (select from by_id) limit 2)
"""  # noqa: S608 - names
_SET: Final = f"""
update public.customers set name = $2, mode = $3, currency = $4, tax_note = $5 where id = $1::uuid returning {_FIELDS}
"""  # noqa: S608 - names
_LIST: Final = """
select c.id::text as id, c.name, c.stripe_customer_id, c.currency, c.mode, c.tax_note, c.created_at,
  (select count(distinct p.user_id) from public.user_customers p
    where p.customer_id = c.id and p.valid_from <= now() and (p.valid_to is null or p.valid_to > now())) as users
from public.customers c order by c.created_at, c.id limit $1
"""
# The users of a customer, by period.
_USERS: Final = """
select u.email, u.id::text as user_id, nullif(p.valid_from, '-infinity') as valid_from, p.valid_to, p.accrued, p.made_by
from public.user_customers p join public.users u on u.id = p.user_id
where p.customer_id = $1::uuid order by u.email, p.valid_from
"""
_CREDIT: Final = """
select b.left_nano from public.credit_balances b where b.user_id = $1::uuid
"""
# Credit that users of a customer have today.
_CREDIT_OF: Final = """
select coalesce(sum(b.left_nano), 0)::bigint as nano, count(*) as users from public.user_customers p
join public.credit_balances b on b.user_id = p.user_id
where p.customer_id = $1::uuid and p.valid_from <= now() and (p.valid_to is null or p.valid_to > now())
"""
# What is left at Stripe, for a customer of mode `grants`.
_STRIPE_CREDIT: Final = """
select available * 10000000 - public.uninvoiced_nano(customer_id, invoiced_until) as nano, asked_at
from public.stripe_credit_balances where customer_id = $1::uuid and asked_at is not null
"""
_UNUSED_CREDIT: Final = """
select u.email, b.left_nano, c.stripe_customer_id, c.mode from public.credit_balances b
join public.users u on u.id = b.user_id join public.customers c on c.stripe_customer_id = u.stripe_customer_id
where b.left_nano <> 0 and c.mode <> 'prepaid' order by b.left_nano desc, u.email
"""
# Not locked: what the writer adds from now on is not decided about, because what was read here is what moves.
_ACCRUED: Final = """
select id, window_start, window_seconds, billed_nano - credit_nano - frozen_nano - settled_nano as nano
from public.billing_windows where user_id = $1::uuid and open order by meter, window_start
"""
# Windows are locked in the order in which the ledger's writer locks them: a customer's first, then a user's own, each
# in time order; so the two never wait for each other.
_TAKE_OVER: Final = """
insert into public.billing_windows as w (
  customer_id, meter, window_start, window_seconds, billed_nano, accrued_nano)
select $3::uuid, u.meter, u.window_start, u.window_seconds, a.nano, a.nano
from unnest($1::bigint[], $2::bigint[]) as a(id, nano) join public.billing_windows u on u.id = a.id
order by u.meter, u.window_start
on conflict on constraint billing_windows_key do update set
  billed_nano = w.billed_nano + excluded.billed_nano,
  accrued_nano = w.accrued_nano + excluded.accrued_nano,
  window_seconds = greatest(w.window_seconds, excluded.window_seconds),
  updated_at = now()
"""
_IN_ORDER: Final = """
with decided as (
  select w.id, a.nano
  from unnest($1::bigint[], $2::bigint[]) as a(id, nano) join public.billing_windows w on w.id = a.id
  order by w.meter, w.window_start for update of w
)
"""
_LEAVE: Final = f"""{_IN_ORDER}
update public.billing_windows w
set billed_nano = w.billed_nano - d.nano, accrued_nano = w.accrued_nano - d.nano, updated_at = now()
from decided d where w.id = d.id
"""  # noqa: S608 - a constant of this file
_SETTLE: Final = f"""{_IN_ORDER}
update public.billing_windows w set settled_nano = w.settled_nano + d.nano,
  written_off_nano = w.written_off_nano + case when $3 then d.nano else 0 end, updated_at = now()
from decided d where w.id = d.id
"""  # noqa: S608 - as above
_DECIDE: Final = """
insert into public.accrued_decisions (made_by, user_id, customer_id, action, windows, nano, reference, why)
values ($1, $2::uuid, $3::uuid, $4, $5, $6, $7, $8)
"""


class CustomerRow(NamedTuple):
    """Who pays."""

    id: str
    name: str | None
    stripe_customer_id: str | None
    currency: str
    mode: str
    tax_note: str | None
    created_at: datetime


class PayerPeriod(NamedTuple):
    """From when on a customer pays for a user: now, or in time to come."""

    id: str
    customer_id: str
    is_ahead: bool
    """Whether it begins later than was asked about."""


class AccruedWindow(NamedTuple):
    """What a user owes of one window while nobody pays."""

    id: int
    window_start: datetime
    window_seconds: int
    nano: int


class PayerStore(Table):
    """All of it over one pool, or in one transaction. Every method raises DependencyDown("postgres")."""

    async def lock(self, user_id: str) -> tuple[datetime, str | None]:
        """Nobody else changes who pays for this user until the transaction ends; the database's time, and Stripe's id
        of the customer who pays now."""
        (row,) = await self._rows(_LOCK, user_id)
        return row["at"], row["stripe_customer_id"]

    async def period(self, user_id: str, at: datetime) -> PayerPeriod | None:
        """The first period that holds `at` or begins later."""
        rows = await self._rows(_PERIOD, user_id, at)
        return PayerPeriod(*rows[0].values()) if rows else None

    async def end(self, period_id: str, at: datetime) -> None:
        """Ends a period."""
        await self._rows(_END, period_id, at)

    async def begin(self, user_id: str, customer_id: str, at: datetime, *, accrued: str | None, by: str) -> None:
        """Begins a period."""
        await self._rows(_BEGIN, user_id, customer_id, at, accrued, by)

    async def find_or_make(self, stripe_customer_id: str, mode: str) -> CustomerRow:
        """The customer with this id at Stripe, who is made (of `mode`) if need be."""
        return CustomerRow(*(await self._rows(_FIND_OR_MAKE, stripe_customer_id, mode))[0].values())

    async def find(self, name: str) -> list[CustomerRow]:
        """The customers whose id, ours or Stripe's, or name this is; at most two."""
        rows = await self._rows(_FIND, name.lower() if is_uuid(name) else None, name)
        return [CustomerRow(*row.values()) for row in rows]

    async def change(self, row: CustomerRow) -> CustomerRow:
        """Makes a customer as `row` says."""
        values = (row.id, row.name, row.mode, row.currency, row.tax_note)
        return CustomerRow(*(await self._rows(_SET, *values))[0].values())

    async def customers(self, at_most: int) -> list[tuple[CustomerRow, int]]:
        """Customers, each with the number of users that it pays for today."""
        rows = await self._rows(_LIST, at_most)
        return [(CustomerRow(*list(row.values())[:-1]), row["users"]) for row in rows]

    async def users(self, customer_id: str) -> list[dict[str, Any]]:
        """The periods in which a customer pays for users."""
        return [dict(row) for row in await self._rows(_USERS, customer_id)]

    async def credit(self, user_id: str) -> int | None:
        """Nano-USD that are left of a user's credit; None for one who never had any."""
        rows = await self._rows(_CREDIT, user_id)
        return int(rows[0][0]) if rows else None

    async def credit_of(self, customer_id: str) -> tuple[int, int]:
        """Nano-USD that are left of the credit of a customer's users, and how many of them have any."""
        (row,) = await self._rows(_CREDIT_OF, customer_id)
        return int(row["nano"]), int(row["users"])

    async def stripe_credit(self, customer_id: str) -> tuple[int, datetime] | None:
        """Nano-USD that calls may still use of a customer's credit at Stripe, and when its balance was read; None where
        it never was."""
        rows = await self._rows(_STRIPE_CREDIT, customer_id)
        return (int(rows[0]["nano"]), rows[0]["asked_at"]) if rows else None

    async def with_unused_credit(self) -> list[tuple[str, int, str, str]]:
        """Users with credit whose customer pays in another way: address, nano-USD left, Stripe's id, mode."""
        return [(row[0], row[1], row[2], row[3]) for row in await self._rows(_UNUSED_CREDIT)]

    async def accrued(self, user_id: str) -> list[AccruedWindow]:
        """What a user has accrued and nobody has decided about, by window, the oldest first."""
        return [AccruedWindow(*row.values()) for row in await self._rows(_ACCRUED, user_id)]

    async def take_over(self, customer_id: str, windows: list[AccruedWindow]) -> None:
        """Moves these amounts to the customer's windows of the same time, where they stay, whoever pays later."""
        given = [window.id for window in windows], [window.nano for window in windows]
        await self._rows(_TAKE_OVER, *given, customer_id)
        await self._rows(_LEAVE, *given)

    async def settle(self, windows: list[AccruedWindow], *, is_written_off: bool) -> None:
        """Takes these amounts out of what will be reported: they were settled elsewhere, or nobody will pay them."""
        given = [window.id for window in windows], [window.nano for window in windows]
        await self._rows(_SETTLE, *given, is_written_off)

    async def decide(
        self, user_id: str, customer_id: str, action: str, windows: list[AccruedWindow],
        *, by: str, reference: str | None, why: str | None,
    ) -> None:  # fmt: skip
        """Records what was decided about them."""
        nano = sum(window.nano for window in windows)
        await self._rows(_DECIDE, by, user_id, customer_id, action, len(windows), nano, reference, why)
