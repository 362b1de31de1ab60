"""Sums beside the ledger against the ledger: roll-up, key counters, writers' counters, Stripe windows and outbox.

Reads only. What depends on a span of time is summed for the span. What only grows (counters, windows against what is
frozen) goes on from the mark of an audit that has compared it whole (marks.py); that one reads `usage_daily`, which is
small beside the ledger.
"""

from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from gateway.audit.reads.marks import KEY_CALLS, SumsSince
from gateway.audit.reads.marks import OWED as OWED_SINCE
from gateway.audit.reads.snapshot import AuditRange, Offenders, Snapshot, select_worst, utc
from gateway.ledger.sql import SOUND_LINE

_SUMS: Final = ("calls", "rows", "prompt_tokens", "completion_tokens", "total_tokens", "cost_usd", "billed_usd")
_IN_SPAN: Final = "($1::timestamptz is null or {column} >= $1) and ($2::timestamptz is null or {column} < $2)"
_ROW_SPAN: Final = _IN_SPAN.format(column="created_at")
_HOUR_SPAN: Final = _IN_SPAN.format(column="hour")
_WINDOW_SPAN: Final = _IN_SPAN.format(column="window_start")
_DIFFERS: Final = " or ".join(f"coalesce(l.{name}, 0) <> coalesce(h.{name}, 0)" for name in _SUMS)

# Hours whose roll-up is not the sum of their rows, each named by hour, user and what it is of.
HOURLY: Final = select_worst(f"""
select {utc("wrong.hour")} || ' user ' || wrong.user_id || ' ' || wrong.model || ' ' || wrong.evidence as example
from (
  with l as (
    select date_bin('1 hour', completed_at, timestamptz 'epoch') as hour, user_id, api_key_id, meeting_id, model,
      endpoint, service_tier, evidence, count(*) filter (where adjusts is null) as calls, count(*) as rows,
      sum(prompt_tokens) as prompt_tokens, sum(completion_tokens) as completion_tokens,
      sum(total_tokens) as total_tokens, sum(cost_usd) as cost_usd, sum(billed_usd) as billed_usd
    from public.openai_usage where {_ROW_SPAN} group by 1, 2, 3, 4, 5, 6, 7, 8
  ), h as (select * from public.usage_hourly where {_HOUR_SPAN})
  select coalesce(l.hour, h.hour) as hour, coalesce(l.user_id, h.user_id) as user_id,
    coalesce(l.model, h.model) as model, coalesce(l.evidence, h.evidence) as evidence
  from l full join h on l.hour = h.hour and l.user_id = h.user_id and l.model = h.model and l.endpoint = h.endpoint
    and l.evidence = h.evidence
    and coalesce(l.api_key_id, '00000000-0000-0000-0000-000000000000') =
        coalesce(h.api_key_id, '00000000-0000-0000-0000-000000000000')
    and coalesce(l.meeting_id, '00000000-0000-0000-0000-000000000000') =
        coalesce(h.meeting_id, '00000000-0000-0000-0000-000000000000')
    and coalesce('=' || l.service_tier, '') = coalesce('=' || h.service_tier, '')
  where {_DIFFERS}
) wrong
""")  # noqa: S608 - constants of this file

# The rows that were booked in whole days or windows: `completed_at` finds all but those that were booked later.
_BOOKED: Final = f"""(
  select u.* from public.openai_usage u where {_ROW_SPAN} and u.booked_at = u.completed_at
  union all
  select u.* from public.late_rows l join public.openai_usage u on u.id = l.usage_id
  where {_IN_SPAN.format(column="l.booked_at")} and u.booked_at <> u.completed_at
)"""  # noqa: S608 - constants of this file
_DAY: Final = "(booked_at at time zone 'UTC')::date as day"
_DAY_SPAN: Final = """($1::timestamptz is null or day >= ($1 at time zone 'UTC')::date)
    and ($2::timestamptz is null or day < ($2 at time zone 'UTC')::date)"""

# Days whose sums are not those of the rows booked in them.
DAILY: Final = select_worst(f"""
select 'day ' || day || ' user ' || user_id || ' ' || model || ' ' || evidence as example from (
  select {_DAY}, user_id, api_key_id, customer_id, model, endpoint, service_tier, evidence,
    (adjusts is null)::integer as calls, 1 as rows, (booked_at <> completed_at)::integer as late_rows,
    coalesce(prompt_tokens, 0) as prompt_tokens, coalesce(completion_tokens, 0) as completion_tokens,
    coalesce(total_tokens, 0) as total_tokens, coalesce(cost_usd, 0) * 1000000000 as cost,
    coalesce(billed_usd, 0) * 1000000000 as billed,
    case books_version when 0 then coalesce(billed_usd, 0) * 1000000000 else 0 end as billed_before
  from {_BOOKED} booked
  union all
  select day, user_id, api_key_id, customer_id, model, endpoint, service_tier, evidence, -calls, -rows, -late_rows,
    -prompt_tokens, -completion_tokens, -total_tokens, -cost_nano, -billed_nano, -billed_before_nano
  from public.usage_daily where {_DAY_SPAN}
) both_sides
group by day, user_id, api_key_id, customer_id, model, endpoint, service_tier, evidence
having sum(calls) <> 0 or sum(rows) <> 0 or sum(late_rows) <> 0 or sum(prompt_tokens) <> 0
  or sum(completion_tokens) <> 0 or sum(total_tokens) <> 0 or sum(cost) <> 0 or sum(billed) <> 0
  or sum(billed_before) <> 0
""")  # noqa: S608

MEETINGS: Final = select_worst(f"""
select 'day ' || day || ' meeting ' || meeting_id || ' user ' || user_id as example from (
  select {_DAY}, meeting_id, user_id, (adjusts is null)::integer as calls, coalesce(cost_usd, 0) * 1000000000 as cost,
    coalesce(billed_usd, 0) * 1000000000 as billed
  from {_BOOKED} booked where meeting_id is not null
  union all
  select day, meeting_id, user_id, -calls, -cost_nano, -billed_nano
  from public.usage_daily_meetings where {_DAY_SPAN}
) both_sides
group by day, meeting_id, user_id having sum(calls) <> 0 or sum(cost) <> 0 or sum(billed) <> 0
""")  # noqa: S608

# Price lines that a worker has yet to add (units_due) are not expected there.
UNITS: Final = select_worst(f"""
select 'day ' || day || ' user ' || user_id || ' ' || model || ' ' || unit as example from (
  select {_DAY}, user_id, api_key_id, model, service_tier, evidence, l ->> 'unit' as unit,
    (l ->> 'usd_per_unit')::numeric as usd_per_unit, coalesce((l ->> 'quantity')::numeric, 0) as quantity,
    coalesce((l ->> 'usd')::numeric, 0) as usd
  from {_BOOKED} booked, jsonb_array_elements(cost_lines) as l
  where {SOUND_LINE} and not exists (
    select from public.units_due d, unnest(d.usage_ids) as due(id) where due.id = booked.id)
  union all
  select day, user_id, api_key_id, model, service_tier, evidence, unit, usd_per_unit, -quantity, -usd
  from public.usage_daily_units where {_DAY_SPAN}
) both_sides
group by day, user_id, api_key_id, model, service_tier, evidence, unit, usd_per_unit
having sum(quantity) <> 0 or sum(usd) <> 0
""")  # noqa: S608

# Months whose sums are not those of their hours; of whole months that are added up.
_MONTH_SPAN: Final = """month in (select month from public.summed_months
    where ($1::timestamptz is null or since >= $1) and ($2::timestamptz is null or until <= $2))"""
MONTHLY: Final = select_worst(f"""
select 'month of ' || month || ' user ' || user_id || ' ' || model as example from (
  select month, user_id, api_key_id, model, cost_nano from public.usage_monthly where {_MONTH_SPAN}
  union all
  select * from (
    select date_trunc('month', hour at time zone 'UTC')::date as month, user_id, api_key_id, model,
      -cost_usd * 1000000000
    from public.usage_hourly where {_HOUR_SPAN}
  ) hours where {_MONTH_SPAN}
) both_sides
group by month, user_id, api_key_id, model having sum(cost_nano) <> 0
""")  # noqa: S608

# Keys whose usage_count is not the number of their calls, by the sums of days.
KEYS: Final = select_worst("""
select 'key ' || k.id as example
from public.api_keys k
left join (select api_key_id, sum(calls) as calls from public.usage_daily group by 1) h on h.api_key_id = k.id
where k.usage_count <> coalesce(h.calls, 0)
""")

# What the span holds.
TOTALS: Final = f"""
select count(*) as rows, count(*) filter (where adjusts is null) as calls, coalesce(sum(cost_usd), 0) as cost_usd,
  coalesce(sum(billed_usd), 0) as billed_usd
from public.openai_usage where {_ROW_SPAN}
"""  # noqa: S608
# The two totals that only grow.
EVER: Final = """
select (select coalesce(sum(rows), 0)::bigint from public.usage_daily) as rows_ever,
  (select coalesce(sum(inserted), 0)::bigint from public.flush_counters) as inserted_ever
"""

# The lengths of the billing windows that a span touches. The index by time finds them, because none is as long as 31
# days (`billing.window_s`).
LENGTHS: Final = " union ".join(
    f"""
select distinct window_seconds from public.{table}
where ($1::timestamptz is null or window_start > $1 - interval '744 hours'
    and window_start + window_seconds * interval '1 second' > $1)
  and ($2::timestamptz is null or window_start < $2)
"""  # noqa: S608
    for table in ("billing_windows", "stripe_windows")
)

PAYER: Final = "coalesce(' user ' || user_id, ' customer ' || customer_id, '')"
# Windows that do not hold what the rows booked in them are billed; $3 is the length of all windows of the span.
WINDOWS: Final = select_worst(f"""
select 'window ' || {utc("at")} || {PAYER} as example from (
  select customer_id, case when customer_id is null then user_id end as user_id,
    date_bin(make_interval(secs => $3::integer), booked_at, timestamptz 'epoch') as at,
    billed_usd * 1000000000 as nano
  from {_BOOKED} booked where books_version = 1 and billed_usd <> 0
  union all
  select customer_id, user_id, window_start, moved_nano + accrued_nano - billed_nano from public.billing_windows
  where {_WINDOW_SPAN}
) both_sides
group by customer_id, user_id, at having sum(nano) <> 0
""")  # noqa: S608
# The same of rows from before payers.
OLD_WINDOWS: Final = select_worst(f"""
select 'window ' || {utc("at")} || {PAYER} as example from (
  select user_id, null::uuid as customer_id,
    date_bin(make_interval(secs => $3::integer), completed_at, timestamptz 'epoch') as at,
    billed_usd * 1000000000 as nano
  from public.openai_usage where {_ROW_SPAN} and books_version = 0 and billed_usd <> 0
  union all
  select user_id, null, window_start, -nano from public.stripe_windows where {_WINDOW_SPAN}
) both_sides
group by customer_id, user_id, at having sum(nano) <> 0
""")  # noqa: S608

# Users whose windows from before payers, of all time, do not add up to what their rows were billed.
OWED: Final = select_worst("""
select 'user ' || user_id as example from (
  select user_id, billed_before_nano as nano from public.usage_daily
  union all
  select user_id, -nano from public.stripe_windows
) both_sides
group by user_id having sum(nano) <> 0
""")

# What left those windows is in billing_windows, and nothing else came to these.
MOVED: Final = """
select (select coalesce(sum(moved_nano), 0)::bigint from public.stripe_windows) as taken,
  (select coalesce(sum(moved_nano), 0)::bigint from public.billing_windows) as put
"""

# Meters whose outbox and carry do not add up to what is frozen in windows (1 unit = 1000 nano-USD). An event that was
# replaced by another, or cancelled at Stripe, covers nothing; what is due to a customer was frozen and is in no event.
# COUNTED compares the totals with the events, which are many.
FROZEN: Final = select_worst("""
select 'meter ' || meter as example from (
  select meter, frozen_nano - moved_nano as nano from public.stripe_windows
  union all
  select meter, frozen_nano from public.billing_windows
  union all
  select meter, -value * 1000 from public.outbox_totals where state not in ('superseded', 'cancelled')
  union all
  select meter, -nano from public.stripe_carry
  union all
  select meter, credit_due_nano - nano from public.billing_carry
) both_sides
group by meter having sum(nano) <> 0
""")

# Left-overs that are no left-over: below 0, or a whole unit.
CARRY: Final = select_worst("""
select 'user ' || user_id || ' meter ' || meter as example from public.stripe_carry where nano not between 0 and 999
union all
select 'customer ' || customer_id || ' meter ' || meter from public.billing_carry
where nano not between 0 and 999 or credit_due_nano < 0
""")

# States whose total is not the sum of the events in them.
COUNTED: Final = select_worst("""
select state || ' meter ' || meter as example from (
  select state, meter, account, count(*) as events, sum(value) as value
  from public.stripe_meter_events group by 1, 2, 3
  union all
  select state, meter, account, -events, -value from public.outbox_totals
) both_sides
group by state, meter, account having sum(events) <> 0 or sum(value) <> 0
""")

# The same of states that an event is in for a while only: indexes find these.
COUNTED_OPEN: Final = select_worst("""
select state || ' meter ' || meter as example from (
  select state, meter, account, 1 as events, value from public.stripe_meter_events where state = 'pending'
  union all
  select state, meter, account, 1, value from public.stripe_meter_events
  where state in ('rejected', 'unknown', 'unreportable')
  union all
  select state, meter, account, -events, -value from public.outbox_totals
  where state in ('pending', 'rejected', 'unknown', 'unreportable')
) both_sides
group by state, meter, account having sum(events) <> 0 or sum(value) <> 0
""")

# The amounts of billing, of windows from $1 on. What was moved is counted once, in billing_windows.
BILLING: Final = """
with old as (
  select coalesce(sum(nano - moved_nano), 0)::bigint as nano, coalesce(sum(nano - frozen_nano), 0)::bigint as unfrozen
  from public.stripe_windows where $1::timestamptz is null or window_start >= $1
), new as (
  select coalesce(sum(billed_nano), 0)::bigint as nano, coalesce(sum(credit_nano), 0)::bigint as credit,
    coalesce(sum(billed_nano - credit_nano - frozen_nano - settled_nano), 0)::bigint as unfrozen,
    coalesce(sum(settled_nano - written_off_nano), 0)::bigint as settled,
    coalesce(sum(written_off_nano), 0)::bigint as written_off
  from public.billing_windows where $1::timestamptz is null or window_start >= $1
), outbox as (
  select coalesce(sum(value) filter (where state in ('sent', 'duplicate')), 0)::bigint as delivered,
    coalesce(sum(value) filter (where state = 'pending'), 0)::bigint as waiting,
    coalesce(sum(value) filter (where state in ('rejected', 'unknown', 'unreportable')), 0)::bigint as held,
    coalesce(sum(value) filter (where state = 'settled'), 0)::bigint as settled_events,
    coalesce(sum(value) filter (where state = 'written_off'), 0)::bigint as written_off_events
  from public.outbox_totals
)
select old.nano + new.nano as nano, old.unfrozen + new.unfrozen as unfrozen, new.credit, new.settled,
  new.written_off, outbox.*,
  (select coalesce(sum(credit_due_nano), 0)::bigint from public.billing_carry) as credit_due,
  (select coalesce(sum(nano), 0)::bigint from public.stripe_carry)
    + (select coalesce(sum(nano), 0)::bigint from public.billing_carry) as carry
from old, new, outbox
"""

# Writers whose entries do not add up.
SLOTS: Final = select_worst("""
select 'slot ' || slot as example from public.flush_counters where entries_read <> inserted + duplicates + quarantined
""")

# Entries as counted, and the quarantine as it lies there.
ENTRIES: Final = """
select coalesce(sum(entries_read), 0)::bigint as entries_read, coalesce(sum(inserted), 0)::bigint as inserted,
  coalesce(sum(duplicates), 0)::bigint as duplicates, coalesce(sum(quarantined), 0)::bigint as quarantined,
  (select count(*) from public.usage_quarantine) as kept,
  (select count(*) from public.usage_quarantine where resolved_at is null) as waiting
from public.flush_counters
"""


class Rollups(NamedTuple):
    """INV-5. Counts are of rows, USD exact to the nano."""

    totals: dict[str, object]
    """`rows`, `calls`, `cost_usd`, `billed_usd` of the span; `rows_ever`, `inserted_ever`."""
    hours: Offenders
    days: Offenders
    meetings: Offenders
    units: Offenders
    monthly: Offenders
    keys: Offenders


class Amounts(NamedTuple):
    """INV-6."""

    totals: dict[str, int]
    """`nano` owed, of that `credit`, `settled`, `written_off` and `unfrozen` nano, `carry` and `credit_due` nano; of
    the events, in micro-USD, what is `delivered`, `waiting`, `held`, `settled_events` and `written_off_events`."""
    windows: Offenders | None
    """None where they were not compared one by one."""
    old_windows: Offenders | None
    """The same, of those from before payers."""
    owed: Offenders | None
    """None where sums of all time go on from a mark: the windows of the span were compared."""
    moved: tuple[int, int] | None
    """Nano-USD that left the windows from before payers, and that came to the others; None as `owed`."""
    frozen: Offenders
    carry: Offenders
    counted: Offenders
    """States of the outbox whose totals are wrong."""


class CounterTotals(NamedTuple):
    """INV-10."""

    totals: dict[str, int]
    """`entries_read`, `inserted`, `duplicates`, `quarantined` as counted; `kept` in quarantine, `waiting` of these."""
    slots: Offenders


async def read_rollups(view: Snapshot, span: AuditRange, since: SumsSince | None = None) -> Rollups:
    """`since`: what sums of all time go on from. Raises DependencyDown, as all of these."""
    totals = dict(await view.row(TOTALS, *span))
    if since is None:
        totals |= dict(await view.row(EVER))
    else:
        totals |= {"rows_ever": since.sums.rows, "inserted_ever": since.counters.rows}
    days = whole_days(span)
    return Rollups(
        totals,
        await view.offenders(HOURLY, *span),
        await view.offenders(DAILY, *days),
        await view.offenders(MEETINGS, *days),
        await view.offenders(UNITS, *days),
        await view.offenders(MONTHLY, *span),
        await view.offenders(KEYS) if since is None else since.compare(KEY_CALLS),
    )


def whole_days(span: AuditRange) -> AuditRange:
    """`span`, widened to whole UTC days."""
    since = None if span.since is None else _midnight(span.since)
    until = None if span.until is None else _midnight(span.until + timedelta(days=1) - timedelta(microseconds=1))
    return AuditRange(since, until)


def _midnight(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


async def window_lengths(view: Snapshot, span: AuditRange) -> list[int]:
    """Seconds, ascending; empty where nothing was billed."""
    return sorted(row["window_seconds"] for row in await view.rows(LENGTHS, *span))


async def read_amounts(
    view: Snapshot, span: AuditRange, window_s: int | None, since: SumsSince | None = None
) -> Amounts:
    """`window_s`: the length of all windows in the span, whole ones only; None compares them in total only. `since`:
    what sums of all time go on from."""
    by_window = old_by_window = None
    if window_s is not None:
        by_window = await view.offenders(WINDOWS, *span, window_s)
        old_by_window = await view.offenders(OLD_WINDOWS, *span, window_s)
    totals = dict(await view.row(BILLING, None if since is None else since.until))
    carry = await view.offenders(CARRY)
    if since is not None:
        frozen, counted = since.compare(OWED_SINCE), await view.offenders(COUNTED_OPEN)
        return Amounts(totals, by_window, old_by_window, None, None, frozen, carry, counted)
    moved = await view.row(MOVED)
    return Amounts(
        totals,
        by_window,
        old_by_window,
        await view.offenders(OWED),
        (moved["taken"], moved["put"]),
        await view.offenders(FROZEN),
        carry,
        await view.offenders(COUNTED),
    )


async def read_counters(view: Snapshot) -> CounterTotals:
    """Whole, whatever the span: the counters only grow."""
    return CounterTotals(dict(await view.row(ENTRIES)), await view.offenders(SLOTS))
