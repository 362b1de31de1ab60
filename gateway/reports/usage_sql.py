"""The two statements that sum usage by the instant at which it was booked. Nothing of what is asked becomes SQL text.

From the sums by day where only whole UTC days are wanted, and neither hours nor meetings. Otherwise from the sums by
hour, which go by the instant at which a call was completed: what was booked later is taken out of its hour and put
into the one of its booking, so that both statements count an amount in the same month, and a sealed one does not move.
"""

from typing import Final

# $1-$2 the range (half-open, each may be NULL), $3 the dimensions, $4 at most so many groups, then the filters, each
# NULL or the one value that is wanted: $5 user, $6 key, $7 meeting, $8 customer, $9 model ($10: with its dated
# snapshots), $11 endpoint, $12 tier, $13 evidence. For the sums by hour also $14-$15 the whole hours in the range, and
# $16-$17 and $18-$19 the ends that cut an hour; both may be empty.
_FILTER: Final = """
    ($5::uuid is null or {of}user_id = $5) and ($6::uuid is null or {of}api_key_id = $6)
    and ($9::text is null or {of}model = $9 or ($10::boolean and starts_with({of}model, $9)
      and substr({of}model, length($9) + 1) ~ '^-[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}$'))
    and ($11::text is null or {of}endpoint = $11) and ($12::text is null or {of}service_tier = $12)
    and ($13::text is null or {of}evidence = $13)
"""
_OF_ROLLUP: Final = _FILTER.format(of="")
_OF_ROW: Final = _FILTER.format(of="u.") + "and ($7::uuid is null or u.meeting_id = $7)"
_OF_CUSTOMER: Final = "and ($8::uuid is null or {of}customer_id = $8)"
_BOOKED_IN_RANGE: Final = """
    ($1::timestamptz is null or l.booked_at >= $1) and ($2::timestamptz is null or l.booked_at < $2)
"""
# A ledger row as the sums have it, $sign$ times; money in nano-USD.
_ROW: Final = """
    u.user_id, u.api_key_id, u.meeting_id, u.customer_id, u.model, u.endpoint, u.service_tier, u.evidence,
    {sign}case when u.adjusts is null then 1 else 0 end, {sign}1, {sign}coalesce(u.prompt_tokens, 0),
    {sign}coalesce(u.completion_tokens, 0), {sign}coalesce(u.total_tokens, 0),
    {sign}coalesce(u.cost_usd * 1000000000, 0)::bigint, {sign}coalesce(u.billed_usd * 1000000000, 0)::bigint, 0, 0, 0
"""
_PLUS: Final = _ROW.format(sign="")
_MINUS: Final = _ROW.format(sign="-")
# What is an estimate or has no price, and was not corrected since: counted beside the sums, which cannot know it.
_OPEN_ROW: Final = """
    u.user_id, u.api_key_id, u.meeting_id, u.customer_id, u.model, u.endpoint, u.service_tier, u.evidence, 0, 0, 0, 0,
    0, 0, 0, case when u.evidence = 'estimated' then 1 else 0 end, case when u.evidence = 'unpriced' then 1 else 0 end,
    case when u.evidence = 'estimated' then (u.cost_usd * 1000000000)::bigint else 0 end
"""
_IS_OPEN: Final = """
    u.evidence in ('estimated', 'unpriced')
    and not exists (select from public.openai_usage a where a.adjusts = u.id)
"""
_OPEN: Final = f"""
  select u.booked_at, {_OPEN_ROW} from public.openai_usage u
  where {_IS_OPEN} and ($1::timestamptz is null or u.created_at >= $1)
    and ($2::timestamptz is null or u.created_at < $2) and u.booked_at = u.created_at
    and {_OF_ROW} {_OF_CUSTOMER.format(of="u.")}
  union all
  select u.booked_at, {_OPEN_ROW} from public.late_rows l join public.openai_usage u on u.id = l.usage_id
  where {_IS_OPEN} and {_BOOKED_IN_RANGE} and {_OF_ROW} {_OF_CUSTOMER.format(of="u.")}
"""  # noqa: S608 - constants of this file, as all below
_DAILY: Final = f"""
  select timezone('UTC', day + time '00:00') as at, user_id, api_key_id, null::uuid as meeting_id, customer_id, model,
    endpoint, service_tier, evidence, calls, rows, prompt_tokens, completion_tokens, total_tokens, cost_nano,
    billed_nano, 0::bigint as estimated_open, 0::bigint as unpriced_open, 0::bigint as open_nano
  from public.usage_daily
  where ($1::timestamptz is null or day >= ($1 at time zone 'UTC')::date)
    and ($2::timestamptz is null or day < ($2 at time zone 'UTC')::date)
    and {_OF_ROLLUP} {_OF_CUSTOMER.format(of="")}
"""  # noqa: S608
_HOURLY: Final = f"""
  select hour as at, user_id, api_key_id, meeting_id, null::uuid as customer_id, model, endpoint, service_tier,
    evidence, calls, rows, prompt_tokens, completion_tokens, total_tokens, (cost_usd * 1000000000)::bigint as cost_nano,
    (billed_usd * 1000000000)::bigint as billed_nano, 0::bigint as estimated_open, 0::bigint as unpriced_open,
    0::bigint as open_nano
  from public.usage_hourly
  where ($14::timestamptz is null or hour >= $14) and ($15::timestamptz is null or hour < $15)
    and {_OF_ROLLUP} and ($7::uuid is null or meeting_id = $7)
  union all
  select u.created_at, {_MINUS} from public.late_rows l join public.openai_usage u on u.id = l.usage_id
  where ($14::timestamptz is null or u.created_at >= $14) and ($15::timestamptz is null or u.created_at < $15)
    and {_OF_ROW}
  union all
  select u.booked_at, {_PLUS} from public.late_rows l join public.openai_usage u on u.id = l.usage_id
  where {_BOOKED_IN_RANGE} and {_OF_ROW}
  union all
  select u.booked_at, {_PLUS} from public.openai_usage u
  where (u.created_at >= $16::timestamptz and u.created_at < $17::timestamptz
      or u.created_at >= $18::timestamptz and u.created_at < $19::timestamptz)
    and u.booked_at = u.created_at and {_OF_ROW}
"""  # noqa: S608
# A dimension that is not asked for is NULL in every row and so groups nothing. An adjustment counts where its own row
# is booked. A group of which everything was booked elsewhere is none.
_SUMMED: Final = """
with part as ({source}
  union all
{still_open}), summed as (
  select
    case when 'month' = any($3::text[]) then date_trunc('month', p.at at time zone 'UTC')::date end as month,
    case when 'week' = any($3) then date_trunc('week', p.at at time zone 'UTC')::date end as week,
    case when 'day' = any($3) then (p.at at time zone 'UTC')::date end as day,
    case when 'hour' = any($3) then date_bin('1 hour', p.at, timestamptz 'epoch') end as hour,
    case when 'user' = any($3) then p.user_id end as user_id,
    case when 'key' = any($3) then p.api_key_id end as api_key_id,
    case when 'meeting' = any($3) then p.meeting_id end as meeting_id,
    case when 'customer' = any($3) then p.customer_id end as customer_id,
    coalesce(kc.code, uc.code) as cost_centre,
    case when 'model' = any($3) then p.model end as model,
    case when 'endpoint' = any($3) then p.endpoint end as endpoint,
    case when 'tier' = any($3) then p.service_tier end as tier,
    case when 'evidence' = any($3) then p.evidence end as evidence,
    sum(p.calls)::bigint as calls,
    sum(p.prompt_tokens)::bigint as prompt_tokens,
    sum(p.completion_tokens)::bigint as completion_tokens,
    sum(p.total_tokens)::bigint as total_tokens,
    sum(p.cost_nano) * 0.000000001 as cost_usd,
    sum(p.billed_nano) * 0.000000001 as billed_usd,
    coalesce(sum(p.calls) filter (where p.evidence = 'estimated'), 0)::bigint as estimated,
    coalesce(sum(p.calls) filter (where p.evidence = 'unpriced'), 0)::bigint as unpriced,
    coalesce(sum(p.calls) filter (where p.evidence = 'void'), 0)::bigint as void,
    coalesce(sum(p.rows) filter (where p.evidence = 'adjustment'), 0)::bigint as adjustments,
    coalesce(sum(p.rows) filter (where p.evidence not in ('unpriced', 'void')), 0)::bigint as priced_rows,
    sum(p.estimated_open)::bigint as estimated_open,
    sum(p.unpriced_open)::bigint as unpriced_open,
    coalesce(sum(p.cost_nano) filter (where p.evidence = 'reported'), 0) * 0.000000001 as reported_cost_usd,
    coalesce(sum(p.cost_nano) filter (where p.evidence = 'drained'), 0) * 0.000000001 as drained_cost_usd,
    coalesce(sum(p.cost_nano) filter (where p.evidence = 'estimated'), 0) * 0.000000001 as estimated_cost_usd,
    coalesce(sum(p.cost_nano) filter (where p.evidence = 'adjustment'), 0) * 0.000000001 as adjustment_cost_usd,
    sum(p.open_nano) * 0.000000001 as estimated_open_cost_usd
  from part p
  left join public.cost_centres kc on 'cost-centre' = any($3) and kc.api_key_id = p.api_key_id
    and kc.valid_from <= p.at and coalesce(kc.valid_to, 'infinity') > p.at
  left join public.cost_centres uc on 'cost-centre' = any($3) and uc.user_id = p.user_id
    and uc.valid_from <= p.at and coalesce(uc.valid_to, 'infinity') > p.at
  group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13
  having sum(p.rows) > 0
)
select s.month, s.week, s.day, s.hour, s.user_id::text as user_id, u.email, s.api_key_id::text as key_id,
  k.name as key_name, s.meeting_id::text as meeting_id, m.room_name, s.customer_id::text as customer_id,
  coalesce(c.name, c.stripe_customer_id) as customer, s.cost_centre, s.model, s.endpoint, s.tier, s.evidence, s.calls,
  s.prompt_tokens, s.completion_tokens, s.total_tokens, s.cost_usd, s.billed_usd, s.estimated, s.unpriced, s.void,
  s.adjustments, s.priced_rows, s.estimated_open, s.unpriced_open, s.reported_cost_usd, s.drained_cost_usd,
  s.estimated_cost_usd, s.adjustment_cost_usd, s.estimated_open_cost_usd
from summed s
left join public.users u on u.id = s.user_id
left join public.api_keys k on k.id = s.api_key_id
left join public.meetings m on m.id = s.meeting_id
left join public.customers c on c.id = s.customer_id
order by s.month, s.week, s.day, s.hour, s.cost_usd desc, u.email, k.name, s.api_key_id, m.room_name, s.meeting_id,
  customer, s.customer_id, s.cost_centre, s.model, s.endpoint, s.tier, s.evidence
limit $4
"""
# Usage of whole UTC days.
BY_DAY: Final = _SUMMED.format(source=_DAILY, still_open=_OPEN)
# Usage of any range, also by hour and by meeting; who pays for it is not known here.
BY_HOUR: Final = _SUMMED.format(source=_HOURLY, still_open=_OPEN)
