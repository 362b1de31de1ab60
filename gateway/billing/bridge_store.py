"""Reads what the bridge needs, payer by payer, from one snapshot of the database. Holds no arithmetic but sums.

A month is that of `booked_at`: of a window its beginning, of a meter event the window that its amount comes from,
whenever it was filed. What is from before payers (`stripe_windows`, by user) belongs to the customer that the user had
from the beginning.
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from gateway.billing.bridge import DEAD_STATES, EVENT_LINES, NANO_PER_UNIT, PayerFacts
from gateway.stores.postgres import Pool, translating_errors

Payer = tuple[UUID | None, UUID | None]
"""A customer, or a user whom nobody pays for yet."""

_DAYS: Final = """
  ($1::timestamptz is null or day >= ($1 at time zone 'UTC')::date)
  and ($2::timestamptz is null or day < ($2 at time zone 'UTC')::date)"""
_WINDOWS: Final = """
  ($1::timestamptz is null or window_start >= $1) and ($2::timestamptz is null or window_start < $2)"""

# The rows that were booked in the span. `created_at` is when they completed, by which nearly all of them are found;
# those that were booked at another time are in late_rows.
BOOKED: Final = """(
  select u.* from public.openai_usage u
  where ($1::timestamptz is null or created_at >= $1) and ($2::timestamptz is null or created_at < $2)
    and booked_at = completed_at
  union all
  select u.* from public.late_rows l join public.openai_usage u on u.id = l.usage_id
  where ($1::timestamptz is null or l.booked_at >= $1) and ($2::timestamptz is null or l.booked_at < $2)
    and u.booked_at <> u.completed_at
)"""

# The window that the amount of an event comes from.
_FROM: Final = "coalesce(e.original_window, e.window_start)"

# What rows booked in the span cost and are billed.
ROWS: Final = f"""
select customer_id, case when customer_id is null then user_id end as user_id,
  sum(cost_nano)::bigint as cost, sum(billed_nano)::bigint as billed
from public.usage_daily where {_DAYS} group by 1, 2
"""  # noqa: S608 - constants of this file
# What windows of the span hold, and what has become of it.
WINDOWS: Final = f"""
select customer_id, user_id, sum(billed_nano - accrued_nano)::bigint as windows_billed,
  sum(accrued_nano)::bigint as accrued, sum(credit_nano)::bigint as credit,
  sum(credit_nano)::bigint as credit_used, sum(frozen_nano)::bigint as frozen,
  sum(settled_nano - written_off_nano)::bigint as windows_settled,
  sum(written_off_nano)::bigint as windows_written_off,
  coalesce(sum(left_nano) filter (where customer_id is null), 0)::bigint as unbilled,
  coalesce(sum(left_nano) filter (where customer_id is not null), 0)::bigint as open
from (select *, billed_nano - credit_nano - frozen_nano - settled_nano as left_nano from public.billing_windows) w
where {_WINDOWS} group by 1, 2
"""  # noqa: S608 - constants of this file
# Windows from before payers, less what was moved to those above.
OLD_WINDOWS: Final = f"""
select customer_id, case when customer_id is null then user_id end as user_id,
  sum(nano - moved_nano)::bigint as windows_billed, sum(frozen_nano - moved_nano)::bigint as frozen
from (select w.*, public.payer_of(w.user_id, '-infinity') as customer_id from public.stripe_windows w) old
where {_WINDOWS} group by 1, 2
"""  # noqa: S608 - constants of this file
# Credit that usage has used, by its own account.
CREDIT: Final = f"select coalesce(sum(nano), 0)::bigint as nano from public.credit_uses where {_DAYS}"  # noqa: S608
# Events by what has become of them; of what Stripe has, the invoice whose period it was filed in.
_EVENTS: Final = f"""
select coalesce(customer_id, owner) as customer_id, user_id, state, reason, value, window_start, invoice
from (
  select e.*, case when e.customer_id is null then public.payer_of(e.user_id, '-infinity') end as owner,
    case when e.state in ('sent', 'duplicate') then (
      select i.id from public.stripe_invoices i
      where i.customer = e.customer and i.subscription is not null
        and i.status in ('draft', 'open', 'paid', 'uncollectible')
        and i.period_start <= e.event_timestamp and e.event_timestamp < i.period_end
      order by i.period_end, i.id limit 1) end as invoice
  from public.stripe_meter_events e where not e.state = any($3::text[]) and {_WINDOWS.replace("window_start", _FROM)}
) e
"""  # noqa: S608 - constants of this file
EVENTS: Final = f"""
select s.customer_id, s.user_id, case when s.state = 'duplicate' then 'sent' else s.state end as state,
  s.invoice is null and s.reason = 'late' as is_late, i.status as invoice, s.invoice as invoice_id,
  sum(s.value)::bigint as value
from ({_EVENTS}) s left join public.stripe_invoices i on i.id = s.invoice group by 1, 2, 3, 4, 5, 6
"""  # noqa: S608 - constants of this file
# Since the beginning: what was made into events, the events that count, and what is carried and due now.
CARRY: Final = """
select customer_id, user_id, sum(nano)::bigint as nano
from (
  select customer_id, user_id, frozen_nano as nano from public.billing_windows
  union all select null, user_id, frozen_nano - moved_nano from public.stripe_windows
  union all select customer_id, user_id, -1000 * value from public.stripe_meter_events where not state = any($1::text[])
  union all select customer_id, null, credit_due_nano - nano
  from public.billing_carry
  union all select null, user_id, -nano from public.stripe_carry
) each group by 1, 2
"""
# Who pays or has paid for whom.
LINKS: Final = "select distinct user_id, customer_id from public.user_customers"
# Billed less cost by what made the amount; reads every row of the span.
MARGINS: Final = f"""
select coalesce(plan_version, 'unknown') as plan, (sum(billed_usd - cost_usd) * 1000000000)::bigint as nano
from {BOOKED} booked group by 1 having sum(billed_usd - cost_usd) is not null
"""  # noqa: S608 - constants of this file
NAMES: Final = """
select c.id, coalesce(c.name, c.stripe_customer_id, c.id::text) as name from public.customers c where c.id = any($1)
union all select u.id, u.email from public.users u where u.id = any($1)
"""


class BridgeFacts(NamedTuple):
    """What was read, from one snapshot."""

    total: PayerFacts
    payers: Mapping[Payer, PayerFacts]


class _Payers:
    """Adds up what is read, by payer."""

    def __init__(self) -> None:
        self.found: Final[dict[Payer, PayerFacts]] = {}

    def add(self, payer: Payer, **amounts: int) -> None:
        """One more amount of a payer. A user of a customer is that customer."""
        key = (payer[0], None if payer[0] is not None else payer[1])
        self.found[key] = self.found.get(key, PayerFacts()).plus(PayerFacts(**amounts))

    def add_rows(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Rows of a query whose other columns are fields of PayerFacts."""
        for row in rows:
            amounts = dict(row)
            self.add((amounts.pop("customer_id"), amounts.pop("user_id")), **amounts)


class _Groups:
    """Which ids belong together."""

    def __init__(self) -> None:
        self._above: Final[dict[UUID, UUID]] = {}

    def find(self, one: UUID) -> UUID:
        """The id that stands for the group of this one."""
        while (above := self._above.get(one, one)) != one:
            one = above
        return one

    def join(self, one: UUID, other: UUID) -> None:
        """Both are of one group."""
        if (first := self.find(one)) != (second := self.find(other)):
            self._above[first] = second


@asynccontextmanager
async def reading_once(pool: Pool) -> AsyncIterator[Any]:
    """A connection whose questions all see the database as of the first one. Raises DependencyDown."""
    with translating_errors():
        async with pool.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
            yield connection


async def read_bridge(connection: Any, since: datetime | None, until: datetime | None) -> BridgeFacts:
    """Of the months from `since` until `until`; None means no bound."""
    payers, dead = _Payers(), sorted(DEAD_STATES)
    payers.add_rows(await connection.fetch(ROWS, since, until))
    payers.add_rows(await connection.fetch(WINDOWS, since, until))
    payers.add_rows(await connection.fetch(OLD_WINDOWS, since, until))
    for event in await connection.fetch(EVENTS, since, until, dead):
        payers.add((event["customer_id"], event["user_id"]), **_event_amounts(event))
    for payer, error in (await _carry_errors(connection, dead)).items():
        found = payers.found.get(payer, PayerFacts())
        # An error of all time shows in a month whose own amounts are further apart than a carry can be.
        if (since, until) == (None, None) or abs(found.frozen - found.counted) >= NANO_PER_UNIT:
            payers.add(payer, carry_error=error)
    total = PayerFacts()
    for facts in payers.found.values():
        total = total.plus(facts)
    used = await connection.fetchval(CREDIT, since, until)
    return BridgeFacts(total._replace(credit_used=used), payers.found)


async def _carry_errors(connection: Any, dead: list[str]) -> dict[Payer, int]:
    """What does not add up since the beginning, as nano-USD of one payer of each group that belongs together.

    A user's early windows are carried by the customer who came to pay for them. So users and customers that were ever
    linked are compared together.
    """
    groups = _Groups()
    for link in await connection.fetch(LINKS):
        groups.join(link["user_id"], link["customer_id"])
    errors: dict[UUID, int] = {}
    payers: dict[UUID, Payer] = {}
    rows = await connection.fetch(CARRY, dead)
    for row in rows:
        if row["customer_id"] is not None and row["user_id"] is not None:
            groups.join(row["user_id"], row["customer_id"])
    for row in rows:
        customer_id, user_id = row["customer_id"], row["user_id"]
        group = groups.find(customer_id or user_id)
        errors[group] = errors.get(group, 0) + row["nano"]
        if group not in payers or user_id is None:
            payers[group] = (customer_id, None if customer_id is not None else user_id)
    return {payers[group]: error for group, error in errors.items() if error}


async def read_margins(connection: Any, since: datetime | None, until: datetime | None) -> dict[str, int]:
    """Nano-USD by plan version. Reads every row of the span."""
    return {row["plan"]: row["nano"] for row in await connection.fetch(MARGINS, since, until)}


async def read_names(connection: Any, payers: Iterable[Payer]) -> dict[UUID, str]:
    """What people call these customers and users."""
    ids = [one for payer in payers for one in payer if one is not None]
    return {row["id"]: row["name"] for row in await connection.fetch(NAMES, ids)}


def _event_amounts(event: Mapping[str, Any]) -> dict[str, int]:
    nano = event["value"] * NANO_PER_UNIT
    line = EVENT_LINES[event["state"]]
    if line != "delivered":
        return {line: nano}
    if event["invoice"] == "draft":
        return {line: nano, "draft": nano}
    if event["invoice"] is not None:
        # Stripe bills a period below zero as zero: nobody has got that money yet.
        return {line: nano, "below_zero" if nano < 0 else "invoiced": nano}
    return {line: nano, "late": nano} if event["is_late"] else {line: nano}
