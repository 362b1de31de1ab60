"""What has begun and should have ended by now: open items, windows to be frozen, meter events on their way.

Reads only. How late is too late is an argument, in instants: the clock is the caller's.
"""

from datetime import datetime
from typing import Final, NamedTuple

from gateway.audit.reads.snapshot import Offenders, Snapshot, select_worst, utc

# Work at OpenAI whose next look is overdue.
ITEMS: Final = select_worst("""
select kind || ' ' || upstream_id as example from public.open_items where state = 'open' and next_poll_at < $1
""")

# Windows that can be frozen. What users owe while nobody pays for them waits for a decision.
_PAID: Final = """
public.billing_windows w join public.customers c on c.id = w.customer_id
where w.open and c.stripe_customer_id is not null
"""

# Windows that ended, were last added to, and whose payer could be billed, all before $1, and that nobody froze.
WINDOWS: Final = select_worst(f"""
select 'window ' || {utc("w.window_start")} || ' customer ' || w.customer_id as example
from {_PAID}
  and w.window_start + w.window_seconds * interval '1 second' < $1 and w.updated_at < $1
  and c.created_at < $1
""")  # noqa: S608 - a constant of this file

# Events that should have been sent before $1.
PENDING: Final = select_worst("""
select identifier as example from public.stripe_meter_events where state = 'pending' and created_at < $1
""")

# Events since before $1 that wait for a person, however old: each is money that nobody is charged for until it is
# sent, settled or written off.
HELD: Final = select_worst("""
select identifier || ' (' || state || ')' as example from public.stripe_meter_events
where created_at < $1 and state in ('rejected', 'unknown', 'unreportable')
""")

# How much is on its way, in all.
COUNTS: Final = f"""
select (select count(*) from public.open_items where state = 'open') as open_items,
  (select count(*) from {_PAID}) as windows_unfrozen,
  (select coalesce(sum(events), 0)::bigint from public.outbox_totals) as meter_events,
  (select coalesce(sum(events), 0)::bigint from public.outbox_totals where state = 'pending') as events_pending,
  (select coalesce(sum(events), 0)::bigint from public.outbox_totals
    where state in ('rejected', 'unknown', 'unreportable')) as events_held
"""  # noqa: S608 - as above


class Lifecycle(NamedTuple):
    """INV-8, as far as the database knows."""

    counts: dict[str, int]
    """`open_items`, `windows_unfrozen` of payers at Stripe, `meter_events`, `events_pending`, `events_held`."""
    items: Offenders
    windows: Offenders
    pending: Offenders
    held: Offenders


async def read_lifecycle(
    view: Snapshot,
    *,
    items_before: datetime,
    windows_before: datetime,
    events_before: datetime,
) -> Lifecycle:
    """Whatever should have happened before these instants. Raises DependencyDown."""
    return Lifecycle(
        dict(await view.row(COUNTS)),
        await view.offenders(ITEMS, items_before),
        await view.offenders(WINDOWS, windows_before),
        await view.offenders(PENDING, events_before),
        await view.offenders(HELD, events_before),
    )
