"""`books` and `periods`: how far the books are sealed, and what has become of each month. Holds no rule.

The clock is the database's, in every statement.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, NamedTuple

import asyncpg

from gateway.kit.errors import Expected
from gateway.stores.postgres import Pool, Table, translating_errors
from gateway.stores.postgres_share import OneTransaction

_CLOSE_LOCK: Final = 7_446_195_881_204_317_105
"""Key of the advisory lock that whoever closes a month holds; any number, as long as it stays."""
# Of the month that ends at $2: whether it is over, sealed, and due to be sealed, which is $1 after its end.
_STANDING: Final = """
select clock_timestamp() >= $2 as is_over, sealed_until >= $2 as is_sealed, clock_timestamp() - $1::interval >= $2
  as may_seal
from public.books
"""
# Up to where the books may be sealed, $1 after the end of the month; no row where they are. It takes no lock.
_IS_DUE: Final = """
select due from (
  select date_trunc('month', at at time zone 'UTC') at time zone 'UTC' as due
  from (select clock_timestamp() - $1::interval as at) clock
) month, public.books
where sealed_until < due
"""
_FIRST: Final = """
select nullif(sealed_until, '-infinity') as sealed_until, (select min(day) from public.usage_daily) as used_since
from public.books
"""
_USED_AND_CLOSED: Final = """
select (select min(day) from public.usage_daily) as used_since,
  array(select month from public.periods where state = 'closed') as closed
"""
_SEAL: Final = "select public.seal_books($1) as sealed"
# One row for each month; one that has a row already is open no longer.
_SEALED: Final = """
insert into public.periods (month, version, state, sealed_at)
select month, 1, 'sealed', clock_timestamp() from unnest(cast($1 as date[])) as month order by month
on conflict (month, version) do update set state = 'sealed', sealed_at = excluded.sealed_at
where periods.state = 'open'
returning month
"""
# How far months are used, sealed and added up.
_TO_SUM: Final = """
select (select min(day) from public.usage_daily) as used_since,
  (select max(until) from public.summed_months) as summed_until, sealed_until
from public.books where sealed_until > '-infinity'
"""
# Adds up a sealed month ($1, from $2 to $3), for budgets (limits/spending.py): what was completed and booked in it,
# which is all but its late rows, and those a trigger adds. Two at once wait for the row of the month; one has it.
_SUM_MONTH: Final = """
with begun as (
  insert into public.summed_months (month, since, until) values ($1, $2, $3) on conflict do nothing returning *
), added as (
  insert into public.usage_monthly as m (month, user_id, api_key_id, model, cost_nano)
  select month, user_id, api_key_id, model, sum(nano) from (
    select month, d.user_id, d.api_key_id, d.model, d.cost_nano as nano
    from begun join public.usage_daily d on d.day >= month and d.day < (until at time zone 'UTC')::date
    union all
    select month, u.user_id, u.api_key_id, u.model, -(coalesce(u.cost_usd, 0) * 1000000000)::bigint
    from begun join public.late_rows l on l.booked_at >= since and l.booked_at < until
    join public.openai_usage u on u.id = l.usage_id
  ) booked
  group by 1, 2, 3, 4
  order by 2, 1, 3, 4
  on conflict on constraint usage_monthly_key do update set cost_nano = m.cost_nano + excluded.cost_nano
)
select month from begun
"""
# Makes the row of a sealed month that was not used when it was sealed.
_FIRST_VERSION: Final = """
insert into public.periods (month, version, state, sealed_at) values ($1, 1, 'sealed', clock_timestamp())
on conflict do nothing
"""
_VERSIONS: Final = """
select month, version, state, sealed_at, closed_at, closed_by, why, totals::text, chain_head, accepted::text,
  pack_digest
from public.periods where month = $1 order by version
"""
_TRY_LOCK: Final = "select pg_try_advisory_xact_lock($1)"
_CLOSING: Final = """
update public.periods set state = 'closing', closed_by = $3, accepted = $4::jsonb
where month = $1 and version = $2 and state in ('sealed', 'closing') returning version
"""
_PACKED: Final = """
update public.periods set pack_digest = $3 where month = $1 and version = $2 and state = 'closing' returning version
"""
_CLOSED: Final = """
update public.periods set state = 'closed', closed_at = clock_timestamp(), totals = $3::jsonb, chain_head = $4,
  pack_digest = $5
where month = $1 and version = $2 and state = 'closing' returning version
"""
_REOPEN: Final = """
update public.periods set state = 'reopened' where month = $1 and version = $2 and state = 'closed' returning version
"""
_NEXT_VERSION: Final = """
insert into public.periods (month, version, state, sealed_at, why)
select month, version + 1, 'sealed', sealed_at, $3 from public.periods where month = $1 and version = $2
"""
_KEEP_BOOK: Final = """
insert into public.price_books (version, files) values ($1, $2::jsonb) on conflict (version) do nothing
"""


class Standing(NamedTuple):
    """Where a month stands by the database's clock."""

    is_over: bool
    is_sealed: bool
    may_seal: bool


class BookPeriod(NamedTuple):
    """One version of a month."""

    month: date
    version: int
    state: str
    sealed_at: datetime | None
    closed_at: datetime | None
    closed_by: str | None
    why: str | None
    totals: Mapping[str, Any] | None
    chain_head: bytes | None
    accepted: Mapping[str, str] | None
    pack_digest: str | None


class BeingClosed(Expected):
    """Somebody else closes a month at this moment."""


class Periods(Table):
    """All of it over one pool, or in one transaction. Every method raises DependencyDown("postgres")."""

    async def standing(self, until: datetime, after_end: timedelta) -> Standing:
        """Of the month that ends at `until`; `after_end` is how long after its end a month is sealed."""
        (row,) = await self._rows(_STANDING, after_end, until)
        return Standing(*row.values())

    async def due(self, after_end: timedelta) -> datetime | None:
        """Up to where the books should be sealed by now; None where they are."""
        rows = await self._rows(_IS_DUE, after_end)
        return rows[0]["due"] if rows else None

    async def seal(self, until: datetime) -> list[date]:
        """Seals all months before `until`, which returns when no writer is under way that knew the old bound.

        For the caller's transaction. Returns the months that are sealed by it and have been used.
        """
        (row,) = await self._rows(_FIRST)
        await self._rows(_SEAL, until)
        months = _months(row["used_since"], row["sealed_until"], until)
        return [each["month"] for each in await self._rows(_SEALED, months)] if months else []

    async def sum_month(self) -> bool:
        """Adds up the next month that is sealed and has no sums yet; whether there was one."""
        for row in await self._rows(_TO_SUM):
            for month in _months(row["used_since"], row["summed_until"], row["sealed_until"])[:1]:
                since = datetime(month.year, month.month, 1, tzinfo=UTC)
                until = (since + timedelta(days=31)).replace(day=1)
                await self._rows(_SUM_MONTH, month, since, until)
                return True
        return False

    async def not_closed_before(self, until: datetime) -> list[date]:
        """The months before `until` that have been used and are not closed, or in an older version only."""
        (row,) = await self._rows(_USED_AND_CLOSED)
        return sorted(set(_months(row["used_since"], None, until)) - set(row["closed"]))

    async def versions(self, month: date) -> list[BookPeriod]:
        """All versions of a month, the oldest first; none where nobody has sealed it yet."""
        return [_period(row) for row in await self._rows(_VERSIONS, month)]

    async def latest(self, month: date) -> BookPeriod:
        """The newest version of a sealed month, which is made where there is none."""
        if not (versions := await self.versions(month)):
            await self._rows(_FIRST_VERSION, month)
            versions = await self.versions(month)
        return versions[-1]

    async def begin(self, month: date, version: int, by: str, accepted: Mapping[str, str]) -> bool:
        """Notes that it is being closed; whether it was sealed, or somebody who closed it has not ended that."""
        return bool(await self._rows(_CLOSING, month, version, by, json.dumps(accepted)))

    async def note_pack(self, month: date, version: int, pack_digest: str) -> None:
        """Notes what the pack will be, before it gets its name: a close that follows knows it for one of its own."""
        await self._rows(_PACKED, month, version, pack_digest)

    async def finish(
        self, month: date, version: int, totals: Mapping[str, Any], chain_head: bytes, pack_digest: str
    ) -> bool:
        """Notes that it is closed; whether it was being closed."""
        return bool(await self._rows(_CLOSED, month, version, json.dumps(totals), chain_head, pack_digest))

    async def reopen(self, month: date, version: int, why: str) -> bool:
        """Makes the next version; whether this one was closed. For the caller's transaction."""
        if not await self._rows(_REOPEN, month, version):
            return False
        await self._rows(_NEXT_VERSION, month, version, why)
        return True

    async def keep_book(self, version: str, files: Mapping[str, str]) -> None:
        """Keeps a price book, for packs of later days."""
        await self._rows(_KEEP_BOOK, version, json.dumps(dict(files)))


@asynccontextmanager
async def closing_alone(pool: Pool) -> AsyncIterator[OneTransaction]:
    """A transaction that holds off everybody else who closes. Raises BeingClosed where somebody does.

    The lock ends with the transaction, so a process that is killed leaves none behind.
    """
    with translating_errors():
        async with pool.acquire() as connection, connection.transaction():
            if not await connection.fetchval(_TRY_LOCK, _CLOSE_LOCK):
                raise BeingClosed("a month is being closed at this moment by somebody else: wait for its end")
            # It does nothing while the pack is written, for as long as that takes.
            await connection.execute("set local idle_in_transaction_session_timeout = 0")
            yield OneTransaction(connection)


def _months(used_since: date | None, sealed_until: datetime | None, until: datetime) -> list[date]:
    """The first days of the months before `until` that have been used, and were not sealed by `sealed_until`."""
    if used_since is None:
        return []
    first, months = used_since.replace(day=1), []
    if sealed_until is not None:
        first = max(first, sealed_until.astimezone(UTC).date().replace(day=1))
    while first < until.astimezone(UTC).date():
        months.append(first)
        first = (first + timedelta(days=31)).replace(day=1)
    return months


def _period(row: asyncpg.Record) -> BookPeriod:
    values = dict(row)
    for name in ("totals", "accepted"):
        values[name] = None if values[name] is None else json.loads(values[name])
    return BookPeriod(**values)
