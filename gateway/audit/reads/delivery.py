"""What Stripe should have counted, by customer and hour, as the outbox has it. Reads only, and never asks Stripe."""

from collections.abc import AsyncGenerator
from datetime import datetime
from decimal import Decimal
from typing import Final, NamedTuple

from gateway.audit.reads.snapshot import Snapshot
from gateway.kit.instants import Period

# Per meter, customer and hour of the event: what was delivered, and whether anything may change it yet.
HOURS: Final = """
select meter, customer, date_bin('1 hour', event_timestamp, timestamptz 'epoch') as hour,
  coalesce(sum(value) filter (where state in ('sent', 'duplicate')), 0)::bigint as micro_usd,
  count(*) filter (where state in ('sent', 'duplicate')) as events,
  bool_or(delivered_at > $3 or state in ('pending', 'unknown')) as unsettled
from public.stripe_meter_events
where event_timestamp >= $1 and event_timestamp < $2
group by 1, 2, 3 order by 1, 2, 3
"""

Counted = dict[datetime, Decimal]
"""Micro-USD that Stripe has counted, by hour."""


class DeliveredHour(NamedTuple):
    """What one customer's events of one hour say."""

    meter: str
    customer: str
    hour: datetime
    micro_usd: int
    """Of the events that Stripe has, whole micro-USD."""
    events: int
    unsettled: bool
    """Whether an event is on its way, in doubt, or was delivered so lately that summaries need not have it."""


async def delivered_hours(
    view: Snapshot, asked: Period, *, settled_by: datetime
) -> AsyncGenerator[DeliveredHour, None]:
    """By meter, customer, hour; an event delivered after `settled_by` makes its hour unsettled."""
    async for row in view.stream(HOURS, *asked, settled_by):
        yield DeliveredHour(*row.values())
