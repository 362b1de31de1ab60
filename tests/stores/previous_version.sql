-- Statements of the version before the books, as it sends them; see tests/stores/previous_version.py.

-- name: INSERT_BATCH
with batch as (
  select * from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[], $6::text[], $7::text[], $8::text[], $9::text[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[], $15::text[], $16::text[], $17::text[], $18::bytea[], $19::text[], $20::text[], $21::text[], $22::text[], $23::timestamptz[], $24::timestamptz[]) as b(id, user_id, meeting_id, api_key_id, adjusts, endpoint, model, service_tier, evidence, prompt_tokens, completion_tokens, total_tokens, cost_nano, billed_nano, price_version, cost_lines, usage, usage_raw, response_id, request_id, metadata, item_ids, started_at, completed_at)
),
added as (
  insert into public.openai_usage as u (
    id, user_id, meeting_id, api_key_id, adjusts, endpoint, model, service_tier, evidence, prompt_tokens,
    completion_tokens, total_tokens, cost_usd, billed_usd, price_version, cost_lines, usage, usage_raw, response_id,
    request_id, metadata, started_at, completed_at)
  select
    id, user_id, meeting_id, api_key_id, adjusts, endpoint, model, service_tier, evidence, prompt_tokens,
    completion_tokens, total_tokens, cost_nano * 0.000000001, billed_nano * 0.000000001, price_version,
    cost_lines::jsonb, usage::jsonb, usage_raw, response_id, request_id, metadata::jsonb, started_at, completed_at
  from batch
  on conflict (id) do nothing
  returning u.id, u.user_id, u.meeting_id, u.api_key_id, u.adjusts, u.endpoint, u.model, u.service_tier, u.evidence,
    u.prompt_tokens, u.completion_tokens, u.total_tokens, u.cost_usd, u.billed_usd, u.response_id, u.completed_at
),
hourly as (
  insert into public.usage_hourly as h (
    user_id, hour, api_key_id, meeting_id, model, endpoint, service_tier, evidence,
    calls, rows, prompt_tokens, completion_tokens, total_tokens, cost_usd, billed_usd)
  select
    user_id, date_bin('1 hour', completed_at, timestamptz 'epoch'), api_key_id, meeting_id, model, endpoint,
    service_tier, evidence, count(*) filter (where adjusts is null), count(*), coalesce(sum(prompt_tokens), 0),
    coalesce(sum(completion_tokens), 0), coalesce(sum(total_tokens), 0), coalesce(sum(cost_usd), 0),
    coalesce(sum(billed_usd), 0)
  from added
  group by 1, 2, 3, 4, 5, 6, 7, 8
  order by 1, 2, 3, 4, 5, 6, 7, 8
  on conflict (user_id, hour, api_key_id, meeting_id, model, endpoint, service_tier, evidence) do update set
    calls = h.calls + excluded.calls,
    rows = h.rows + excluded.rows,
    prompt_tokens = h.prompt_tokens + excluded.prompt_tokens,
    completion_tokens = h.completion_tokens + excluded.completion_tokens,
    total_tokens = h.total_tokens + excluded.total_tokens,
    cost_usd = h.cost_usd + excluded.cost_usd,
    billed_usd = h.billed_usd + excluded.billed_usd
),
key_use as (
  select api_key_id, count(*) filter (where adjusts is null) as calls, max(completed_at) as last_at
  from added where api_key_id is not null group by 1
),
locked as (
  select k.id, n.calls, n.last_at from public.api_keys k join key_use n on n.api_key_id = k.id
  order by k.id for no key update of k
),
used as (
  update public.api_keys k
  set usage_count = k.usage_count + l.calls, last_used_at = greatest(k.last_used_at, l.last_at)
  from locked l where k.id = l.id
),
windows as (
  insert into public.stripe_windows as w (user_id, meter, window_start, window_seconds, nano)
  select user_id, $25::text, date_bin(make_interval(secs => $26::integer), completed_at,
    timestamptz 'epoch'), $26::integer, (sum(billed_usd) * 1000000000)::bigint
  from added where billed_usd <> 0
  group by 1, 3
  order by 1, 3
  on conflict (user_id, meter, window_start) do update set
    nano = w.nano + excluded.nano,
    window_seconds = greatest(w.window_seconds, excluded.window_seconds),
    updated_at = now()
),
objects as (
  insert into public.upstream_objects (object_id, kind, user_id, api_key_id, event_id, created_at)
  select response_id, 'response', user_id, api_key_id, id, completed_at
  from added where endpoint = 'responses' and response_id is not null
  union all
  select item.id, 'item', a.user_id, a.api_key_id, a.id, a.completed_at
  from batch b join added a using (id), jsonb_array_elements_text(b.item_ids::jsonb) as item(id)
  where b.item_ids <> '[]'
  order by 1, 5
  on conflict (object_id) do nothing
),
counted as (
  insert into public.flush_counters as c (slot, entries_read, inserted, duplicates)
  select pg_backend_pid() % 64, $27::bigint, count(*), $27::bigint - count(*) from added
  on conflict (slot) do update set
    entries_read = c.entries_read + excluded.entries_read,
    inserted = c.inserted + excluded.inserted,
    duplicates = c.duplicates + excluded.duplicates,
    updated_at = now()
)
select count(*) from added

-- name: CLOSED
select distinct w.user_id, w.meter
from public.stripe_windows w join public.users u on u.id = w.user_id
where w.unfrozen and u.stripe_customer_id is not null
  and w.window_start + w.window_seconds * interval '1 second' <= $1
limit $2

-- name: CARRY_ROW
insert into public.stripe_carry (user_id, meter) values ($1, $2) on conflict do nothing

-- name: CARRY_LOCK
select c.nano, u.stripe_customer_id as customer
from public.stripe_carry c join public.users u on u.id = c.user_id
where c.user_id = $1 and c.meter = $2 for update of c skip locked

-- name: WINDOWS
select window_start, window_seconds, nano, frozen_nano, next_seq
from public.stripe_windows
where user_id = $1 and meter = $2 and unfrozen and window_start + window_seconds * interval '1 second' <= $3
order by window_start

-- name: FREEZE_WINDOW
update public.stripe_windows set frozen_nano = $4, next_seq = $5, updated_at = now()
where user_id = $1 and meter = $2 and window_start = $3

-- name: FREEZE_CARRY
update public.stripe_carry set nano = $3, updated_at = now() where user_id = $1 and meter = $2

-- name: INSERT_EVENT
insert into public.stripe_meter_events (user_id, customer, meter, window_start, window_seconds, seq, value, nano,
  carry_nano_after, event_timestamp, identifier, next_attempt_at, account)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
on conflict do nothing returning id

-- name: EXPIRE
update public.stripe_meter_events
set state = 'unknown', next_attempt_at = null,
  last_error = 'in doubt for too long, not sent again; last: ' || coalesce(last_error, 'no answer was recorded')
where state = 'pending' and first_attempt_at <= $1 and next_attempt_at <= $2

-- name: CLAIM
with head as (
  select distinct on (customer, meter) id from public.stripe_meter_events
  where state = 'pending' and (account is null or account = $5) order by customer, meter, id
), due as (
  select e.id, e.first_attempt_at from public.stripe_meter_events e join head using (id)
  where e.state = 'pending' and e.next_attempt_at <= $1
    and (e.first_attempt_at is null or e.first_attempt_at > $4)
  order by e.next_attempt_at, e.id limit $3 for update of e skip locked
)
update public.stripe_meter_events e
set attempts = attempts + 1, first_attempt_at = coalesce(e.first_attempt_at, $1), next_attempt_at = $2, account = $5
from due where e.id = due.id
returning e.id, e.attempts, due.first_attempt_at as doubt_since,
  e.meter, e.customer, e.value, e.identifier, e.event_timestamp

-- name: OF_OTHERS
select account, count(*) from public.stripe_meter_events
where state = 'pending' and account <> $1 group by account order by account

-- name: MARK_DELIVERED
update public.stripe_meter_events set state = $2, delivered_at = $3, next_attempt_at = null, last_error = null
where id = $1 and identifier = $4 and state in ('pending', 'unknown')

-- name: MARK_REJECTED
update public.stripe_meter_events set state = 'rejected', next_attempt_at = null, last_error = $3
where id = $1 and attempts = $2 and state = 'pending'

-- name: MARK_RETRY
update public.stripe_meter_events set next_attempt_at = $3, last_error = $4, first_attempt_at = $5
where id = $1 and attempts = $2 and state = 'pending'

-- name: HELD
select id, user_id, meter, customer, window_start, seq, value, identifier, event_timestamp, state, attempts,
  last_error, delivered_at
from public.stripe_meter_events where state = any($1::text[]) order by id desc limit $2

-- name: REISSUE_LOCK
select id, user_id, meter, customer, window_start, identifier from public.stripe_meter_events
where identifier = $1 and state in ('rejected', 'unknown') for update

-- name: NEXT_SEQ
update public.stripe_windows set next_seq = next_seq + 1, updated_at = now()
where user_id = $1 and meter = $2 and window_start = $3 returning next_seq - 1

-- name: REISSUE
update public.stripe_meter_events set state = 'pending', seq = $2, identifier = $3, customer = $4,
  first_attempt_at = null, next_attempt_at = $5, last_error = 'sent before as ' || identifier
where id = $1

-- name: RESOLVE
update public.stripe_meter_events set state = 'sent', delivered_at = $2, next_attempt_at = null
where identifier = $1 and state = 'unknown' returning id

-- name: COUNTS
select state, count(*), sum(value)::bigint as value from public.stripe_meter_events group by state

-- name: OLDEST
select min(created_at) from public.stripe_meter_events where state = 'pending'

-- name: ACCRUED
select count(distinct w.user_id) filter (where u.stripe_customer_id is null) as users_without_customer,
  coalesce(sum(w.nano - w.frozen_nano) filter (where u.stripe_customer_id is null), 0)::bigint as nano_without_customer,
  coalesce(sum(w.nano - w.frozen_nano), 0)::bigint as nano_unfrozen
from public.stripe_windows w join public.users u on u.id = w.user_id where w.unfrozen

-- name: CUSTOMER
select stripe_customer_id from public.users where id = $1

-- name: TAKEN
select exists (select from public.stripe_meter_events where identifier = $1)

-- name: REPORT_MEETINGS
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

-- name: REPORT_ROOM
select room_name from public.meetings where id = $1::uuid

-- name: REPORT_USAGE
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

-- name: SPENT_COST
with edge as (
  -- The first whole hour that begins at $5 or later; hours are those of UTC, whatever the session's time zone is.
  select date_bin('1 hour', $5::timestamptz + interval '1 hour' - interval '1 microsecond', timestamptz 'epoch') as hour
),
whole as (
  select coalesce(sum(cost_usd), 0) as usd from public.usage_hourly, edge
  where user_id = $1::uuid and ($2::uuid is null or api_key_id = $2) and ($3::uuid is null or meeting_id = $3)
    and ($4::text is null or model = $4 or (starts_with(model, $4)
      and substr(model, length($4) + 1) ~ '^-[0-9]{4}-[0-9]{2}-[0-9]{2}$'))
    and usage_hourly.hour >= edge.hour and ($6::timestamptz is null or usage_hourly.hour < $6)
),
part as (
  select coalesce(sum(cost_usd), 0) as usd from public.openai_usage, edge
  where user_id = $1::uuid and ($2::uuid is null or api_key_id = $2) and ($3::uuid is null or meeting_id = $3)
    and ($4::text is null or model = $4 or (starts_with(model, $4)
      and substr(model, length($4) + 1) ~ '^-[0-9]{4}-[0-9]{2}-[0-9]{2}$'))
    and created_at >= $5::timestamptz and created_at < edge.hour
)
select ((whole.usd + part.usd) * 1000000000)::bigint as nano,
  array(select id::text from public.openai_usage where id = any($7::uuid[])) as contained,
  array(select distinct adjusts::text from public.openai_usage where adjusts = any($8::uuid[])) as corrected
from whole, part

-- name: SPENT_BILLED
with edge as (
  -- The first whole hour that begins at $5 or later; hours are those of UTC, whatever the session's time zone is.
  select date_bin('1 hour', $5::timestamptz + interval '1 hour' - interval '1 microsecond', timestamptz 'epoch') as hour
),
whole as (
  select coalesce(sum(billed_usd), 0) as usd from public.usage_hourly, edge
  where user_id = $1::uuid and ($2::uuid is null or api_key_id = $2) and ($3::uuid is null or meeting_id = $3)
    and ($4::text is null or model = $4 or (starts_with(model, $4)
      and substr(model, length($4) + 1) ~ '^-[0-9]{4}-[0-9]{2}-[0-9]{2}$'))
    and usage_hourly.hour >= edge.hour and ($6::timestamptz is null or usage_hourly.hour < $6)
),
part as (
  select coalesce(sum(billed_usd), 0) as usd from public.openai_usage, edge
  where user_id = $1::uuid and ($2::uuid is null or api_key_id = $2) and ($3::uuid is null or meeting_id = $3)
    and ($4::text is null or model = $4 or (starts_with(model, $4)
      and substr(model, length($4) + 1) ~ '^-[0-9]{4}-[0-9]{2}-[0-9]{2}$'))
    and created_at >= $5::timestamptz and created_at < edge.hour
)
select ((whole.usd + part.usd) * 1000000000)::bigint as nano,
  array(select id::text from public.openai_usage where id = any($7::uuid[])) as contained,
  array(select distinct adjusts::text from public.openai_usage where adjusts = any($8::uuid[])) as corrected
from whole, part

-- name: IDENTITY
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
  -- What bounds their spending, as limits/budgets reads it; credit is a budget whose limit is what was paid.
  (select coalesce(jsonb_agg(to_jsonb(bound) || jsonb_build_object('since',
    to_char(bound.since at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))), '[]')::text from (
    select b.id::text as id, b.user_id, (least(b.limit_usd, 1000000) * 1000000000)::bigint as limit_nano, b.period,
      b.is_hard as hard, b.created_at as since, b.api_key_id, b.meeting_id, b.model, 'cost_usd' as counts
    from public.budgets b
    where b.user_id = u.id and b.is_active
      and (b.api_key_id is null or b.api_key_id = (select k.id from key k where k.user_id = u.id))
    union all
    select 'credit:' || c.user_id, c.user_id, (least(sum(c.amount_usd), 1000000) * 1000000000)::bigint, 'total', true,
      min(c.created_at), null, null, null, 'billed_usd'
    from public.credit_entries c where c.user_id = u.id group by c.user_id
  ) bound) as budgets
from public.users u
where u.id = coalesce((select k.user_id from key k), $1::uuid)
