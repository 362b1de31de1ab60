"""The ledger's queries, each with one sentence. Must not be built from pieces of input: everything is a parameter.

`INSERT_BATCH` is one statement on purpose: one round trip, atomic without BEGIN, and every roll-up reads the rows
that were really inserted (`added`), never the batch, so that a repeated entry counts nowhere. All upserts go in key
order, so two writers queue for a row but never deadlock. What counts by `booked_at` (sums by day, windows, credit) is
carried on by a trigger of the table at the end of the same statement; price lines follow a little later (`ADD_UNITS`).
"""

from typing import Final

COLUMNS: Final = (
    ("id", "uuid"),
    ("user_id", "uuid"),
    ("meeting_id", "uuid"),
    ("api_key_id", "uuid"),
    ("adjusts", "uuid"),
    ("endpoint", "text"),
    ("model", "text"),
    ("service_tier", "text"),
    ("evidence", "text"),
    ("prompt_tokens", "bigint"),
    ("completion_tokens", "bigint"),
    ("total_tokens", "bigint"),
    ("cost_nano", "bigint"),
    ("billed_nano", "bigint"),
    ("price_version", "text"),
    ("plan_version", "text"),
    ("cost_lines", "text"),
    ("usage", "text"),
    ("usage_raw", "bytea"),
    ("response_id", "text"),
    ("request_id", "text"),
    ("metadata", "text"),
    ("item_ids", "text"),
    ("started_at", "timestamptz"),
    ("completed_at", "timestamptz"),
)
"""Name and type of each array that INSERT_BATCH takes, in this order; then the number of entries."""

_N: Final = len(COLUMNS)
_NAMES: Final = ", ".join(name for name, _ in COLUMNS)
# Each connection counts in a row of its own (or nearly), so that writers do not queue for a single one.
_SLOT: Final = "pg_backend_pid() % 64"
_ARRAYS: Final = ", ".join(f"${i}::{kind}[]" for i, (_, kind) in enumerate(COLUMNS, 1))

# Puts a batch (in id order) into the ledger and carries what was new into every sum; returns how many were new.
# Multiplying by 1e-9 is exact in numeric; dividing by 1e9 is not for large amounts.
INSERT_BATCH: Final = f"""
with batch as (
  select * from unnest({_ARRAYS}) as b({_NAMES})
),
-- Holds off the sealing of a month until this statement is committed; in this order, `at` is after the lock.
bound as materialized (
  select public.books_sealed_until() as sealed, clock_timestamp() as at
),
added as (
  insert into public.openai_usage as u (
    id, user_id, meeting_id, api_key_id, adjusts, endpoint, model, service_tier, evidence, prompt_tokens,
    completion_tokens, total_tokens, cost_usd, billed_usd, price_version, plan_version, cost_lines, usage, usage_raw,
    response_id, request_id, metadata, started_at, completed_at, booked_at, customer_id)
  select
    b.id, b.user_id, b.meeting_id, b.api_key_id, b.adjusts, b.endpoint, b.model, b.service_tier, b.evidence,
    b.prompt_tokens, b.completion_tokens, b.total_tokens, b.cost_nano * 0.000000001, b.billed_nano * 0.000000001,
    b.price_version, nullif(b.plan_version, ''), b.cost_lines::jsonb, b.usage::jsonb, b.usage_raw, b.response_id,
    b.request_id, b.metadata::jsonb, b.started_at, b.completed_at,
    case when b.completed_at >= bound.sealed then b.completed_at else greatest(bound.at, bound.sealed) end,
    case when b.adjusts is null then p.customer_id else public.payer_of_adjustment(b.adjusts, b.user_id,
      coalesce((select o.completed_at from batch o where o.id = b.adjusts), b.completed_at)) end
  from batch b cross join bound
  left join public.user_customers p on p.user_id = b.user_id and p.valid_from <= b.completed_at
    and (p.valid_to is null or p.valid_to > b.completed_at)
  order by b.id
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
  select {_SLOT}, ${_N + 1}::bigint, count(*), ${_N + 1}::bigint - count(*) from added
  on conflict (slot) do update set
    entries_read = c.entries_read + excluded.entries_read,
    inserted = c.inserted + excluded.inserted,
    duplicates = c.duplicates + excluded.duplicates,
    updated_at = now()
)
select count(*) from added
"""  # noqa: S608 - only names and numbers of COLUMNS are put in

# Says where billed amounts accrue: the trigger that adds them up cannot read settings.
SET_WINDOW: Final = """
update public.books set meter = $1, window_seconds = $2 where meter <> $1 or window_seconds <> $2
"""

SOUND_LINE: Final = r"""
length(l ->> 'unit') between 1 and 100 and length(l ->> 'usd_per_unit') <= 60
  and coalesce(length(l ->> 'quantity'), 0) <= 60 and coalesce(length(l ->> 'usd'), 0) <= 60
  and (l ->> 'usd_per_unit') || ' ' || coalesce(l ->> 'quantity', '0') || ' ' || coalesce(l ->> 'usd', '0')
    ~ '^-?[0-9]+(\.[0-9]+)? -?[0-9]+(\.[0-9]+)? -?[0-9]+(\.[0-9]+)?$'
"""
"""Whether `l`, an element of cost_lines, is a price line. Whatever else a row holds must not stop a worker: it is in
the ledger for good."""

# Carries the price lines of rows that are due into the sums by day, at most $1 statements' rows; returns of how many.
# Estimates about which OpenAI may say more, calls of the endpoints $2, are listed to be asked about ($3 is the kind):
# every row comes by here once, so nobody has to look for them.
# Grouped by hash first (`offset 0` keeps the two apart): sorting every line by eight columns costs more. In key order,
# and what another worker has taken is left to it; so each row counts once and nobody waits in a circle.
ADD_UNITS: Final = f"""
with due as (
  delete from public.units_due
  where id = any(array(select id from public.units_due order by id limit $1 for update skip locked))
  returning usage_ids
),
added as (
  insert into public.usage_daily_units as n (
    day, user_id, api_key_id, model, service_tier, evidence, unit, usd_per_unit, quantity, usd)
  select * from (
    select (u.booked_at at time zone 'UTC')::date, u.user_id, u.api_key_id, u.model, u.service_tier, u.evidence,
      l ->> 'unit', (l ->> 'usd_per_unit')::numeric, coalesce(sum((l ->> 'quantity')::numeric), 0),
      coalesce(sum((l ->> 'usd')::numeric), 0)
    from due cross join unnest(due.usage_ids) as row(id)
    join public.openai_usage u on u.id = row.id
    cross join jsonb_array_elements(u.cost_lines) as l
    where {SOUND_LINE}
    group by 1, 2, 3, 4, 5, 6, 7, 8
    offset 0
  ) as lines
  order by 1, 2, 3, 4, 5, 6, 7, 8
  on conflict on constraint usage_daily_units_key do update set
    quantity = n.quantity + excluded.quantity,
    usd = n.usd + excluded.usd
),
listed as (
  insert into public.open_items (id, kind, upstream_id, user_id, api_key_id, meeting_id, endpoint, model, service_tier,
    opened_at, next_poll_at)
  select u.id, $3, u.response_id, u.user_id, u.api_key_id, u.meeting_id, u.endpoint, u.model, u.service_tier,
    u.started_at, now()
  from due cross join unnest(due.usage_ids) as row(id)
  join public.openai_usage u on u.id = row.id
  where u.evidence = 'estimated' and u.response_id is not null and u.endpoint = any($2::text[])
  order by u.id
  on conflict do nothing
)
select count(*) from due
"""  # noqa: S608 - a constant of this file

# Those of these objects at OpenAI whose owner is known.
OBJECTS: Final = "select object_id from public.upstream_objects where object_id = any($1::text[])"

# Keeps one entry that can never be a ledger row, counted once however often it comes; returns whether it was new.
QUARANTINE: Final = f"""
with kept as (
  insert into public.usage_quarantine (event_id, raw, kind, reason, sqlstate) values ($1, $2, $3, $4, $5)
  on conflict (digest) do nothing
  returning 1
),
counted as (
  insert into public.flush_counters as c (slot, entries_read, quarantined, duplicates)
  select {_SLOT}, 1, count(*), 1 - count(*) from kept
  on conflict (slot) do update set
    entries_read = c.entries_read + 1,
    quarantined = c.quarantined + excluded.quarantined,
    duplicates = c.duplicates + excluded.duplicates,
    updated_at = now()
)
select count(*) from kept
"""  # noqa: S608 - see above

# Of these calls, those whose row is an estimate that nothing has corrected. Asked by what a correction names, not by
# its id: those of older versions have ids of another kind.
ESTIMATES: Final = """
select id::text, coalesce(prompt_tokens, 0), coalesce(completion_tokens, 0), coalesce(total_tokens, 0),
  (cost_usd * 1000000000)::bigint, (billed_usd * 1000000000)::bigint, plan_version
from public.openai_usage u where id = any($1::uuid[]) and evidence = 'estimated'
  and not exists (select from public.openai_usage a where a.adjusts = u.id)
"""
# Entries that wait for a person.
QUARANTINED: Final = "select count(*) from public.usage_quarantine where resolved_at is null"
# Which of these event ids have arrived for good, as a row or in quarantine.
CONFIRMED: Final = """
select id::text from public.openai_usage where id = any($1::uuid[])
union
select event_id from public.usage_quarantine where event_id = any($2::text[])
"""
