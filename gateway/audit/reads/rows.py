"""The ledger's own rows, for the audit: what must be unique, what each kind of evidence needs, what is an estimate.

Reads only. Rules about one row that PostgreSQL itself can state are asked of it; prices are not known here.
"""

from collections.abc import AsyncIterator
from datetime import date, datetime
from decimal import Decimal
from typing import Final, NamedTuple

from gateway.audit.reads.snapshot import AuditRange, Offenders, Snapshot, select_worst
from gateway.usage.usage_block import BLOCK_BYTES_MAX

_SPAN: Final = "($1::timestamptz is null or created_at >= $1) and ($2::timestamptz is null or created_at < $2)"

# What makes an id or an answer count once, and holds rows as they are; each that is missing or switched off.
GUARDS: Final = select_worst("""
select wanted.example from (values
  ('primary key on openai_usage (id)', exists (
    select from pg_index where indrelid = 'public.openai_usage'::regclass and indisprimary and indisvalid)),
  ('unique index on openai_usage (response_id)', exists (
    select from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
    where i.indrelid = 'public.openai_usage'::regclass and i.indisunique and i.indisvalid
      and i.indnkeyatts = 1 and a.attname = 'response_id')),
  ('foreign key on openai_usage (adjusts)', exists (
    select from pg_constraint c join pg_attribute a on a.attrelid = c.conrelid and a.attnum = c.conkey[1]
    where c.conrelid = 'public.openai_usage'::regclass and c.contype = 'f' and c.convalidated
      and a.attname = 'adjusts')),
  ('trigger that keeps openai_usage append-only', exists (
    select from pg_trigger where tgrelid = 'public.openai_usage'::regclass and tgname = 'openai_usage_append_only'
      and tgenabled = 'A'))
) as wanted(example, there) where not there
""")

# Ids on more than one row.
IDS: Final = select_worst(
    f"select id::text as example from public.openai_usage where {_SPAN} group by id having count(*) > 1"  # noqa: S608
)

# Answers of OpenAI that several rows have counted; the other row may be older than the span.
RESPONSES: Final = select_worst(f"""
select response_id as example from (
  select distinct response_id from public.openai_usage where response_id is not null and adjusts is null and {_SPAN}
) s join public.openai_usage u using (response_id)
where u.adjusts is null group by response_id having count(*) > 1
""")  # noqa: S608
# The same where no row of the span needs to be looked up: the index holds it, or everything is in the span anyway.
RESPONSES_WITHIN: Final = select_worst(f"""
select response_id as example from public.openai_usage
where response_id is not null and adjusts is null and {_SPAN} group by response_id having count(*) > 1
""")  # noqa: S608

# Corrections of nothing.
ADJUSTED: Final = select_worst(f"""
select a.id::text as example from public.openai_usage a
where a.adjusts is not null and {_SPAN.replace("created_at", "a.created_at")}
  and not exists (select from public.openai_usage o where o.id = a.adjusts)
""")  # noqa: S608

_LACKS: Final = (
    ("void with a cost", "evidence = 'void' and (cost_usd <> 0 or billed_usd <> 0)"),
    ("void without metadata.void_reason", "evidence = 'void' and coalesce(metadata->>'void_reason', '') = ''"),
    (
        "void with usage",
        "evidence = 'void' and (usage is not null or usage_raw is not null or coalesce(total_tokens, 0) <> 0)",
    ),
    (
        "no usage from OpenAI",
        "evidence in ('reported', 'drained') and coalesce(jsonb_typeof(usage), 'null') = 'null' and usage_raw is null",
    ),
    ("no price version", "evidence in ('reported', 'drained', 'estimated') and price_version = ''"),
    (
        "a cost without lines",
        "evidence in ('reported', 'drained', 'estimated') and cost_usd <> 0 and cost_lines = '[]'",
    ),
    ("unpriced, and does not say why", "evidence = 'unpriced' and coalesce(metadata->'problems', '[]') = '[]'"),
)
# Rows that lack what their evidence needs, each with the reason in words.
EVIDENCE: Final = select_worst(f"""
select id || ' (' || what || ')' as example
from public.openai_usage cross join lateral (
  values {", ".join(f"('{what}', {rule})" for what, rule in _LACKS)}
) as lacks(what, is_lacking)
where {_SPAN} and is_lacking
""")  # noqa: S608
# How many rows there are of each kind.
KINDS: Final = f"select evidence, count(*) as rows from public.openai_usage where {_SPAN} group by 1 order by 1"  # noqa: S608

# Everything that a price is made of, and the price; of every row, because each is billed. `exact`: what a correction by
# a later answer of OpenAI says of the whole call, where it says what it follows from.
PRICED: Final = f"""
select id::text, endpoint, model, service_tier, started_at,
  coalesce(convert_to(usage::text, 'UTF8'), case when octet_length(usage_raw) < {BLOCK_BYTES_MAX} then usage_raw end)
    as usage,
  (metadata->'billable')::text as billable,
  prompt_tokens, completion_tokens, total_tokens, (cost_usd * 1000000000)::bigint as cost_nano,
  (billed_usd * 1000000000)::bigint as billed_nano, price_version, cost_lines::text as lines,
  evidence, user_id::text as user_id, api_key_id::text as api_key_id, plan_version, books_version = 0 as is_old,
  metadata->>'service_tier_asked' as tier_asked, metadata ? 'not_billed' as is_not_billed,
  metadata ? 'correction' as is_by_hand,
  case when evidence = 'adjustment' and metadata ? 'exact_lines' then jsonb_build_object(
    'cost_usd', metadata->'exact_cost_usd', 'billed_usd', metadata->'exact_billed_usd',
    'lines', metadata->'exact_lines', 'was_nano', (
      select (o.billed_usd * 1000000000)::bigint from public.openai_usage o where o.id = u.adjusts))::text end as exact
from public.openai_usage u where {_SPAN}
"""  # noqa: S608

_BOUND: Final = "metadata->>'bound_usd'"
# Estimates that do not say why, or that are above what they say is the most it can have been.
UNBOUNDED: Final = select_worst(f"""
select id::text as example from public.openai_usage
where evidence = 'estimated' and {_SPAN}
  and (coalesce(metadata->>'reason', '') = ''
    or case when {_BOUND} ~ '^[0-9]+([.][0-9]+)?$' then ({_BOUND})::numeric < cost_usd else true end)
""")  # noqa: S608
# Estimates by UTC day: how many, their sum, the most it can have been, how many were corrected since.
ESTIMATES: Final = f"""
select (u.created_at at time zone 'UTC')::date as day, count(*) as rows, sum(u.cost_usd) as cost_usd,
  sum(case when u.{_BOUND} ~ '^[0-9]+([.][0-9]+)?$' then (u.{_BOUND})::numeric end) as bound_usd,
  count(*) filter (where exists (select from public.openai_usage a where a.adjusts = u.id)) as corrected
from public.openai_usage u where u.evidence = 'estimated' and {_SPAN.replace("created_at", "u.created_at")}
group by 1 order by 1
"""  # noqa: S608


class Uniqueness(NamedTuple):
    """INV-2."""

    guards: Offenders
    ids: Offenders
    responses: Offenders
    adjusted: Offenders


class Evidence(NamedTuple):
    """INV-4."""

    kinds: dict[str, int]
    """Rows by evidence."""
    lacking: Offenders


class EstimateDay(NamedTuple):
    """Estimates completed on one UTC day, USD exact to the nano."""

    day: date
    rows: int
    cost_usd: Decimal
    bound_usd: Decimal | None
    corrected: int


class Estimates(NamedTuple):
    """INV-9."""

    days: list[EstimateDay]
    unbounded: Offenders


class PricedRow(NamedTuple):
    """A row of any evidence; JSON columns as text, money in nano-USD."""

    id: str
    endpoint: str
    model: str
    service_tier: str | None
    started_at: datetime
    usage: bytes | None
    """The block as JSON; None also where only its beginning was kept."""
    billable: str | None
    """metadata.billable."""
    prompt_tokens: int | None
    completion_tokens: int | None
    total_tokens: int | None
    cost_nano: int | None
    billed_nano: int | None
    price_version: str
    lines: str
    evidence: str
    user_id: str
    api_key_id: str | None
    plan_version: str | None
    is_old: bool
    """From before there were plans: a migration has found out by what it was billed."""
    tier_asked: str | None
    """metadata.service_tier_asked."""
    is_not_billed: bool
    """An estimate that was not billed, by the setting."""
    is_by_hand: bool
    """A correction that a person has made."""
    exact: str | None
    """Of a correction by a later answer of OpenAI: the whole call, and what the estimate was billed."""


async def read_uniqueness(view: Snapshot, span: AuditRange) -> Uniqueness:
    """Raises DependencyDown, as all of these."""
    guards = await view.offenders(GUARDS)
    # With its index in place, only what the index cannot see is worth a look, and that is within the span.
    elsewhere = bool(guards.found) and span.since is not None
    return Uniqueness(
        guards,
        await view.offenders(IDS, *span),
        await view.offenders(RESPONSES if elsewhere else RESPONSES_WITHIN, *span),
        await view.offenders(ADJUSTED, *span),
    )


async def read_evidence(view: Snapshot, span: AuditRange) -> Evidence:
    kinds = {row["evidence"]: row["rows"] for row in await view.rows(KINDS, *span)}
    return Evidence(kinds, await view.offenders(EVIDENCE, *span))


async def read_estimates(view: Snapshot, span: AuditRange) -> Estimates:
    days = [EstimateDay(*row.values()) for row in await view.rows(ESTIMATES, *span)]
    return Estimates(days, await view.offenders(UNBOUNDED, *span))


async def priced_rows(view: Snapshot, span: AuditRange) -> AsyncIterator[PricedRow]:
    """One by one, in no order; memory does not grow with the ledger."""
    async for row in view.stream(PRICED, *span):
        yield PricedRow(*row.values())
