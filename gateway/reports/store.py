"""Usage summed for reports, from the hourly roll-up, and from the ledger itself where a range cuts an hour.

Reads only. One fixed statement, whatever is asked: groupings and ranges are parameters, never text put into SQL.
`openai_usage` is the truth; a test holds the two sums together.
"""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Final, NamedTuple

from gateway.stores.postgres import Table

# Whole hours come from the roll-up ($1, $2), the rest of a cut hour from the ledger ($3-$4 and $5-$6; may be empty).
# A dimension that is not asked for ($7) is NULL in every row and so groups nothing. A filter ($9-$13) is NULL, or the
# one value that is wanted. An adjustment counts in the hour, meeting, key ... that its own row names.
_USAGE: Final = """
with part as (
  select hour as at, user_id, api_key_id, meeting_id, model, endpoint, service_tier, evidence, calls, rows,
    prompt_tokens, completion_tokens, total_tokens, cost_usd, billed_usd
  from public.usage_hourly
  where ($1::timestamptz is null or hour >= $1) and ($2::timestamptz is null or hour < $2)
    and ($9::uuid is null or user_id = $9) and ($10::uuid is null or api_key_id = $10)
    and ($11::uuid is null or meeting_id = $11) and ($12::text is null or model = $12)
    and ($13::text is null or endpoint = $13)
  union all
  select created_at, user_id, api_key_id, meeting_id, model, endpoint, service_tier, evidence,
    case when adjusts is null then 1 else 0 end, 1, coalesce(prompt_tokens, 0), coalesce(completion_tokens, 0),
    coalesce(total_tokens, 0), coalesce(cost_usd, 0), coalesce(billed_usd, 0)
  from public.openai_usage
  where (created_at >= $3::timestamptz and created_at < $4::timestamptz
      or created_at >= $5::timestamptz and created_at < $6::timestamptz)
    and ($9 is null or user_id = $9) and ($10 is null or api_key_id = $10)
    and ($11 is null or meeting_id = $11) and ($12 is null or model = $12) and ($13 is null or endpoint = $13)
), summed as (
  select
    case when 'month' = any($7::text[]) then date_trunc('month', at at time zone 'UTC')::date end as month,
    case when 'day' = any($7) then (at at time zone 'UTC')::date end as day,
    case when 'hour' = any($7) then date_bin('1 hour', at, timestamptz 'epoch') end as hour,
    case when 'user' = any($7) then user_id end as user_id,
    case when 'key' = any($7) then api_key_id end as api_key_id,
    case when 'meeting' = any($7) then meeting_id end as meeting_id,
    case when 'model' = any($7) then model end as model,
    case when 'endpoint' = any($7) then endpoint end as endpoint,
    case when 'tier' = any($7) then service_tier end as tier,
    sum(calls)::bigint as calls,
    sum(prompt_tokens)::bigint as prompt_tokens,
    sum(completion_tokens)::bigint as completion_tokens,
    sum(total_tokens)::bigint as total_tokens,
    sum(cost_usd) as cost_usd,
    sum(billed_usd) as billed_usd,
    coalesce(sum(calls) filter (where evidence = 'estimated'), 0)::bigint as estimated,
    coalesce(sum(calls) filter (where evidence = 'unpriced'), 0)::bigint as unpriced,
    coalesce(sum(calls) filter (where evidence = 'void'), 0)::bigint as void,
    coalesce(sum(rows) filter (where evidence = 'adjustment'), 0)::bigint as adjustments
  from part group by 1, 2, 3, 4, 5, 6, 7, 8, 9
)
select s.month, s.day, s.hour, s.user_id::text as user_id, u.email, s.api_key_id::text as key_id, k.name as key_name,
  s.meeting_id::text as meeting_id, m.room_name, s.model, s.endpoint, s.tier, s.calls, s.prompt_tokens,
  s.completion_tokens, s.total_tokens, s.cost_usd, s.billed_usd, s.estimated, s.unpriced, s.void, s.adjustments
from summed s
left join public.users u on u.id = s.user_id
left join public.api_keys k on k.id = s.api_key_id
left join public.meetings m on m.id = s.meeting_id
order by s.month, s.day, s.hour, s.cost_usd desc, u.email, k.name, s.api_key_id, m.room_name, s.meeting_id, s.model,
  s.endpoint, s.tier
limit $8
"""
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
_HOUR: Final = timedelta(hours=1)


class UsageRow(NamedTuple):
    """One group. A dimension that was not asked for is None; so is the key of usage that came without one."""

    month: date | None
    """First day of the UTC month."""
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
    model: str | None
    endpoint: str | None
    tier: str | None
    calls: int
    """Ledger rows that correct no other one."""
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cost_usd: Decimal
    """What OpenAI charges, USD, exact to 1e-9."""
    billed_usd: Decimal
    """What the customer is charged, USD, exact to 1e-9."""
    estimated: int
    """Calls whose usage OpenAI never said."""
    unpriced: int
    """Calls whose price was not known when they were made."""
    void: int
    """Calls that are proven not to have run."""
    adjustments: int
    """Rows that correct another one."""


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
    """What usage must be of, exactly; None is anything."""

    user_id: str | None = None
    key_id: str | None = None
    """Ours, as in `openai_usage.api_key_id`."""
    meeting_id: str | None = None
    model: str | None = None
    endpoint: str | None = None


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
        """Usage completed in [since, until), UTC, grouped by `by`: month, day, hour, user, key, meeting, model,
        endpoint, tier.

        Ordered by time, then the dearest first. At most `rows_max` groups. Raises DependencyDown("postgres").
        """
        rows = await self._rows(_USAGE, *_ranges(since, until), list(by), rows_max, *of)
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

    async def room_of(self, meeting_id: str) -> str | None:
        """The room of a meeting (a UUID); None when there is no such meeting. Raises DependencyDown("postgres")."""
        rows = await self._rows(_ROOM, meeting_id)
        return rows[0][0] if rows else None


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
