"""Usage summed for reports, from the sums by day or by hour, and from the ledger itself where a range cuts an hour.

Reads only. Two fixed statements, whatever is asked: groupings and ranges are parameters, never text put into SQL.
`openai_usage` is the truth; a test holds the sums together.
"""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Final, NamedTuple

from gateway.kit.errors import OptionError
from gateway.kit.ids import is_uuid
from gateway.reports import usage_sql
from gateway.stores.postgres import Table

# Meetings named by $1, and those that began in [$2, $3) ($5: of one user). Who is still there counts until $4, or until
# the meeting's end. The latest first.
_MEETINGS: Final = """
select m.id::text, m.room_name, u.email, m.status, m.started_at, m.ended_at, m.duration_seconds,
  coalesce(p.participants, 0) as participants, coalesce(p.seconds, 0)::bigint as participant_seconds
from public.meetings m
left join public.users u on u.id = m.user_id
left join lateral (
  select count(*) as participants, sum(coalesce(
    p.duration_seconds, greatest(0, extract(epoch from coalesce(p.left_at, m.ended_at, $4) - p.joined_at)), 0
  )) as seconds
  from public.participants p where p.meeting_id = m.id
) p on true
where m.id = any($1::uuid[]) or (
  m.started_at is not null and ($2::timestamptz is null or m.started_at >= $2)
  and ($3::timestamptz is null or m.started_at < $3) and ($5::uuid is null or m.user_id = $5)
)
order by m.started_at desc nulls last, m.id limit $6
"""
_ROOM: Final = "select room_name from public.meetings where id = $1::uuid"
_CUSTOMERS: Final = """
select id::text from public.customers where id = $1::uuid or stripe_customer_id = $2 or name = $2 limit 2
"""
_HOUR: Final = timedelta(hours=1)


class UsageRow(NamedTuple):
    """One group. A dimension that was not asked for is None; so is the key of usage that came without one."""

    month: date | None
    """First day of the UTC month."""
    week: date | None
    """Its Monday (ISO 8601), UTC."""
    day: date | None
    hour: datetime | None
    """First instant of the UTC hour."""
    user_id: str | None
    email: str | None
    key_id: str | None
    key_name: str | None
    meeting_id: str | None
    """None also for usage that came without a meeting."""
    room_name: str | None
    customer_id: str | None
    """None also for usage that nobody pays for yet."""
    customer: str | None
    """Its name, else Stripe's id of it."""
    cost_centre: str | None
    """Of the key, else of its user, at that time; None also where there was none."""
    model: str | None
    endpoint: str | None
    tier: str | None
    evidence: str | None
    calls: int
    """Ledger rows that correct no other one."""
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cost_usd: Decimal
    """What OpenAI charges, USD, exact to 1e-9; 0 where `is_unpriced`."""
    billed_usd: Decimal
    """What the customer is charged, USD, exact to 1e-9; 0 where `is_unpriced`."""
    estimated: int
    """Calls whose usage OpenAI never said."""
    unpriced: int
    """Calls whose price was not known when they were made."""
    void: int
    """Calls that are proven not to have run."""
    adjustments: int
    """Rows that correct another one."""
    priced_rows: int
    """Rows that have an amount and are not void."""
    estimated_open: int
    """Of the estimated calls, those that nothing has corrected since."""
    unpriced_open: int
    """Of the unpriced calls, those that nothing has corrected since."""
    reported_cost_usd: Decimal
    """The cost by evidence; these four add up to `cost_usd`."""
    drained_cost_usd: Decimal
    estimated_cost_usd: Decimal
    adjustment_cost_usd: Decimal
    estimated_open_cost_usd: Decimal
    """The cost of the estimates that are open."""

    @property
    def is_unpriced(self) -> bool:
        """Whether no amount of it is known, which is not the same as 0."""
        return bool(self.unpriced) and not self.priced_rows


class MeetingTime(NamedTuple):
    """A meeting as it took place."""

    id: str
    room_name: str
    email: str | None
    """Its owner's; None while it has none."""
    status: str
    started_at: datetime | None
    ended_at: datetime | None
    duration_seconds: int | None
    participants: int
    """Connections: somebody who came twice counts twice."""
    participant_seconds: int


class UsageFilter(NamedTuple):
    """What usage must be of; None is anything."""

    user_id: str | None = None
    key_id: str | None = None
    """Ours, as in `openai_usage.api_key_id`."""
    meeting_id: str | None = None
    customer_id: str | None = None
    model: str | None = None
    snapshots: bool = True
    """Whether the dated snapshots of `model` count too."""
    endpoint: str | None = None
    tier: str | None = None
    evidence: str | None = None

    def asked(self) -> dict[str, str]:
        """What is not anything, as the document of a report names it."""
        given = {name: value for name, value in self._asdict().items() if value is not None and name != "snapshots"}
        return given if self.model is None or self.snapshots else given | {"model": f"{self.model}!"}


EVERYTHING: Final = UsageFilter()


class Reports(Table):
    """Usage sums over one connection pool."""

    async def usage(
        self,
        by: tuple[str, ...],
        since: datetime | None,
        until: datetime | None,
        *,
        of: UsageFilter = EVERYTHING,
        rows_max: int,
    ) -> list[UsageRow]:
        """Usage booked in [since, until), UTC, grouped by `by` (DIMENSIONS of reports/usage.py).

        Ordered by time, then the dearest first. At most `rows_max` groups. Raises OptionError where payers are asked
        for by hour or by meeting, DependencyDown("postgres").
        """
        asked = (since, until, list(by), rows_max, *of)
        if {"hour", "meeting"} & set(by) or of.meeting_id is not None or _cuts_a_day(since) or _cuts_a_day(until):
            if "customer" in by or of.customer_id is not None:
                raise OptionError("customer: known by whole UTC days only, not by hour or meeting")
            rows = await self._rows(usage_sql.BY_HOUR, *asked, *_ranges(since, until))
        else:
            rows = await self._rows(usage_sql.BY_DAY, *asked)
        return [UsageRow(*row.values()) for row in rows]

    async def meetings(
        self,
        ids: Sequence[str],
        since: datetime | None,
        until: datetime | None,
        now: datetime,
        *,
        user_id: str | None,
        rows_max: int,
    ) -> list[MeetingTime]:
        """Meetings with these ids (UUIDs), and those that began in [since, until), the latest first; of one user where
        `user_id` is given. Raises DependencyDown("postgres")."""
        rows = await self._rows(_MEETINGS, list(ids), since, until, now, user_id, rows_max)
        return [MeetingTime(*row.values()) for row in rows]

    async def customers_named(self, name: str) -> list[str]:
        """The customers whose id, ours or Stripe's, or name this is, at most two. Raises DependencyDown("postgres")."""
        rows = await self._rows(_CUSTOMERS, name.lower() if is_uuid(name) else None, name)
        return [row[0] for row in rows]

    async def room_of(self, meeting_id: str) -> str | None:
        """The room of a meeting (a UUID); None when there is no such meeting. Raises DependencyDown("postgres")."""
        rows = await self._rows(_ROOM, meeting_id)
        return rows[0][0] if rows else None


def _cuts_a_day(at: datetime | None) -> bool:
    return at is not None and bool(_hours(at) % timedelta(days=1))


def _ranges(since: datetime | None, until: datetime | None) -> tuple[datetime | None, ...]:
    """Whole hours inside [since, until), then the two ragged ends; an empty range has its ends equal."""
    first = None if since is None else -(-_hours(since) // _HOUR) * _HOUR + _EPOCH
    last = None if until is None else _hours(until) // _HOUR * _HOUR + _EPOCH
    if since is not None and until is not None and first is not None and last is not None and first > last:
        return (since, since, since, until, until, until)  # both ends inside one hour
    return (first, last, since, first, last, until)


_EPOCH: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


def _hours(at: datetime) -> timedelta:
    return at - _EPOCH
