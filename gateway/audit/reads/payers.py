"""Who pays for what: windows by payer and prepaid credit against what the rows are billed. Reads only."""

from typing import Final, NamedTuple

from gateway.audit.reads.marks import CREDIT, SumsSince
from gateway.audit.reads.snapshot import Offenders, Snapshot, select_worst
from gateway.audit.reads.sums import PAYER

# Payers whose windows from $1 on, or of all time, do not add up to what the rows are billed since there are payers.
PAYERS: Final = select_worst(f"""
select ltrim({PAYER}) as example from (
  select customer_id, case when customer_id is null then user_id end as user_id,
    billed_nano - billed_before_nano as nano
  from public.usage_daily where $1::timestamptz is null or day >= ($1 at time zone 'UTC')::date
  union all
  select customer_id, user_id, moved_nano + accrued_nano - billed_nano from public.billing_windows
  where $1::timestamptz is null or window_start >= $1
) both_sides
group by customer_id, user_id having sum(nano) <> 0
""")  # noqa: S608

# Payers whose windows have taken over, left to a customer, settled or written off something else than was decided about
# what users accrued.
DECIDED: Final = select_worst(f"""
select ltrim({PAYER}) as example from (
  select customer_id, user_id, accrued_nano as billed,
    case when user_id is not null then settled_nano - written_off_nano else 0 end as settled,
    case when user_id is not null then written_off_nano else 0 end as written_off
  from public.billing_windows
  union all
  select customer_id, null, -nano, 0, 0 from public.accrued_decisions where action = 'bill'
  union all
  select null, user_id, case action when 'bill' then nano else 0 end, case action when 'settle' then -nano else 0 end,
    case action when 'write-off' then -nano else 0 end
  from public.accrued_decisions
) both_sides
group by customer_id, user_id having sum(billed) <> 0 or sum(settled) <> 0 or sum(written_off) <> 0
""")  # noqa: S608

# Users whose credit was used by something else than the uses of its days.
CREDIT_USES: Final = select_worst("""
select 'user ' || user_id as example from (
  select user_id, used_nano as nano from public.credit_balances
  union all
  select user_id, -nano from public.credit_uses
) both_sides
group by user_id having sum(nano) <> 0
""")
# Users whose balance is not what they were given, or who have used more than that.
CREDIT_GIVEN: Final = select_worst("""
select 'user ' || coalesce(b.user_id, e.user_id) as example
from public.credit_balances b
full join (select user_id, (sum(amount_usd) * 1000000000)::bigint as nano from public.credit_entries group by 1) e
  on e.user_id = b.user_id
where coalesce(b.granted_nano, 0) <> coalesce(e.nano, 0) or b.user_id is null or b.used_nano < 0
""")
# What credit has paid, as balances and as windows have it.
CREDIT_SUMS: Final = """
select (select coalesce(sum(used_nano), 0)::bigint from public.credit_balances) as used,
  (select coalesce(sum(credit_nano), 0)::bigint from public.billing_windows) as paid
"""


class Payers(NamedTuple):
    """INV-11."""

    payers: Offenders
    decided: Offenders | None
    """None, as the next two, where sums of all time go on from a mark."""
    uses: Offenders | None
    given: Offenders | None
    credit: tuple[int, int]
    """Nano-USD that balances say is used, and that windows say was paid by it."""


async def read_payers(view: Snapshot, since: SumsSince | None = None) -> Payers:
    """Whole, whatever the span, or going on from a mark."""
    if since is not None:
        payers = await view.offenders(PAYERS, since.until)
        return Payers(payers, None, None, None, (since.counters[CREDIT], since.sums[CREDIT]))
    credit = await view.row(CREDIT_SUMS)
    return Payers(
        await view.offenders(PAYERS, None),
        await view.offenders(DECIDED),
        await view.offenders(CREDIT_USES),
        await view.offenders(CREDIT_GIVEN),
        (credit["used"], credit["paid"]),
    )
