"""Sums beside the ledger against the ledger: roll-up, key counters, writers' counters, Stripe windows and outbox.

Reads only. What depends on a span of time is summed for the span; what only grows (counters, windows against what is
frozen) is compared whole, through `usage_hourly`, which is small, so that no audit has to read the ledger twice.
"""

from typing import Final, NamedTuple

from gateway.audit.reads.snapshot import AuditRange, Offenders, Snapshot, select_worst, utc

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

# Keys whose usage_count is not the number of their calls, by the roll-up.
KEYS: Final = select_worst("""
select 'key ' || k.id as example
from public.api_keys k
left join (select api_key_id, sum(calls) as calls from public.usage_hourly group by 1) h on h.api_key_id = k.id
where k.usage_count <> coalesce(h.calls, 0)
""")

# What the span holds, and the two totals that only grow.
TOTALS: Final = f"""
select count(*) as rows, count(*) filter (where adjusts is null) as calls, coalesce(sum(cost_usd), 0) as cost_usd,
  coalesce(sum(billed_usd), 0) as billed_usd,
  (select coalesce(sum(rows), 0)::bigint from public.usage_hourly) as rows_ever,
  (select coalesce(sum(inserted), 0)::bigint from public.flush_counters) as inserted_ever
from public.openai_usage where {_ROW_SPAN}
"""  # noqa: S608

# The lengths of the billing windows that a span touches.
LENGTHS: Final = """
select distinct window_seconds from public.stripe_windows
where ($1::timestamptz is null or window_start + window_seconds * interval '1 second' > $1)
  and ($2::timestamptz is null or window_start < $2)
"""

# Windows that do not hold what their rows are billed; $3 is the length of every window of the span, seconds.
WINDOWS: Final = select_worst(f"""
select 'window ' || {utc("coalesce(l.at, w.at)")} || ' user ' || coalesce(l.user_id, w.user_id) as example
from (
  select user_id, date_bin(make_interval(secs => $3::integer), completed_at, timestamptz 'epoch') as at,
    sum(billed_usd) * 1000000000 as nano
  from public.openai_usage where {_ROW_SPAN} group by 1, 2
) l full join (
  select user_id, window_start as at, sum(nano) as nano from public.stripe_windows where {_WINDOW_SPAN} group by 1, 2
) w on l.user_id = w.user_id and l.at = w.at
where coalesce(l.nano, 0) <> coalesce(w.nano, 0)
""")  # noqa: S608

# Users whose windows, of all time and all meters, do not add up to what the roll-up says they are billed.
OWED: Final = select_worst("""
select 'user ' || coalesce(h.user_id, w.user_id) as example
from (select user_id, sum(billed_usd) * 1000000000 as nano from public.usage_hourly group by 1) h
full join (select user_id, sum(nano) as nano from public.stripe_windows group by 1) w on w.user_id = h.user_id
where coalesce(h.nano, 0) <> coalesce(w.nano, 0)
""")

# Users whose outbox and carry do not add up to what is frozen in their windows (1 unit = 1000 nano-USD).
FROZEN: Final = select_worst("""
select 'user ' || coalesce(w.user_id, e.user_id, c.user_id) || ' meter ' || coalesce(w.meter, e.meter, c.meter)
  as example
from (select user_id, meter, sum(frozen_nano) as nano from public.stripe_windows group by 1, 2) w
full join (select user_id, meter, sum(value) * 1000 as nano from public.stripe_meter_events group by 1, 2) e
  on e.user_id = w.user_id and e.meter = w.meter
full join public.stripe_carry c on c.user_id = coalesce(w.user_id, e.user_id) and c.meter = coalesce(w.meter, e.meter)
where coalesce(w.nano, 0) <> coalesce(e.nano, 0) + coalesce(c.nano, 0)
""")

# Left-overs that are no left-over: below 0, or a whole unit.
CARRY: Final = select_worst("""
select 'user ' || user_id || ' meter ' || meter as example from public.stripe_carry where nano not between 0 and 999
""")

# The amounts of billing as a whole.
BILLING: Final = """
select coalesce(sum(nano), 0)::bigint as nano, coalesce(sum(nano - frozen_nano), 0)::bigint as unfrozen,
  (select coalesce(sum(value), 0)::bigint from public.stripe_meter_events) as events,
  (select coalesce(sum(nano), 0)::bigint from public.stripe_carry) as carry
from public.stripe_windows
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
    keys: Offenders


class Amounts(NamedTuple):
    """INV-6."""

    totals: dict[str, int]
    """`nano` owed, `unfrozen` nano, `events` in micro-USD, `carry` nano."""
    windows: Offenders | None
    """None where they were not compared one by one."""
    owed: Offenders
    frozen: Offenders
    carry: Offenders


class CounterTotals(NamedTuple):
    """INV-10."""

    totals: dict[str, int]
    """`entries_read`, `inserted`, `duplicates`, `quarantined` as counted; `kept` in quarantine, `waiting` of these."""
    slots: Offenders


async def read_rollups(view: Snapshot, span: AuditRange) -> Rollups:
    """Raises DependencyDown, as all of these."""
    totals = dict(await view.row(TOTALS, *span))
    return Rollups(totals, await view.offenders(HOURLY, *span), await view.offenders(KEYS))


async def window_lengths(view: Snapshot, span: AuditRange) -> list[int]:
    """Seconds, ascending; empty where nothing was billed."""
    return sorted(row["window_seconds"] for row in await view.rows(LENGTHS, *span))


async def read_amounts(view: Snapshot, span: AuditRange, window_s: int | None) -> Amounts:
    """`window_s`: the length of all windows in the span, whole ones only; None compares them in total only."""
    by_window = None
    if window_s is not None:
        by_window = await view.offenders(WINDOWS, *span, window_s)
    return Amounts(
        dict(await view.row(BILLING)),
        by_window,
        await view.offenders(OWED),
        await view.offenders(FROZEN),
        await view.offenders(CARRY),
    )


async def read_counters(view: Snapshot) -> CounterTotals:
    """Whole, whatever the span: the counters only grow."""
    return CounterTotals(dict(await view.row(ENTRIES)), await view.offenders(SLOTS))
