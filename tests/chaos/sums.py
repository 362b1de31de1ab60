"""What stands beside the rows after chaos: roll-up, key counters, windows, outbox, and what Stripe has counted.

Written apart from `gateway audit`, which is under test too. Every difference is one line that names what differs.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import asyncpg

_SUMS: Final = """count(*) filter (where adjusts is null), count(*), coalesce(sum(prompt_tokens), 0),
  coalesce(sum(completion_tokens), 0), coalesce(sum(total_tokens), 0), coalesce(sum(cost_usd), 0),
  coalesce(sum(billed_usd), 0)"""
_HOUR: Final = "user_id, api_key_id, meeting_id, model, endpoint, service_tier, evidence"
HOURLY: Final = f"""
with l as (select date_bin('1 hour', completed_at, timestamptz 'epoch'), {_HOUR}, {_SUMS}
  from openai_usage group by 1, {_HOUR}),
h as (select hour, {_HOUR}, calls, rows, prompt_tokens, completion_tokens, total_tokens, cost_usd, billed_usd
  from usage_hourly)
select 'roll-up: ' || wrong::text from ((table l except table h) union all (table h except table l)) wrong
"""
KEYS: Final = """
select 'key ' || k.id || ' counts ' || k.usage_count || ' of ' || count(u.id) from api_keys k
left join openai_usage u on u.api_key_id = k.id and u.adjusts is null
group by k.id having k.usage_count <> count(u.id)
"""
WINDOWS: Final = """
with w as (
  select coalesce(customer_id, user_id) as payer, window_start, window_seconds, billed_nano as nano from billing_windows
),
l as (select w.payer, w.window_start, sum(u.billed_usd) * 1000000000 as nano from w
  join openai_usage u on coalesce(u.customer_id, u.user_id) = w.payer and u.booked_at >= w.window_start
    and u.booked_at < w.window_start + w.window_seconds * interval '1 second'
  group by 1, 2)
select 'window ' || w.window_start || ' holds ' || w.nano || ' of ' || coalesce(l.nano, 0)
from w left join l using (payer, window_start) where w.nano <> coalesce(l.nano, 0)
union all
select 'windows of ' || payer || ' lack some of ' || owed from
  (select coalesce(customer_id, user_id) as payer, sum(billed_usd) * 1000000000 as owed from openai_usage group by 1) o
where owed <> (select coalesce(sum(nano), 0) from w where w.payer = o.payer)
"""
OUTBOX: Final = """
select 'outbox of ' || meter || ' misses ' || sum(nano) from (
  select meter, frozen_nano as nano from billing_windows
  union all
  select meter, -value * 1000 from stripe_meter_events where state not in ('superseded', 'cancelled')
  union all
  select meter, -nano from billing_carry
) places
group by meter having sum(nano) <> 0
"""
EVENTS: Final = "select identifier, customer, value, state from stripe_meter_events"
DELIVERED: Final = ("sent", "duplicate")


async def wrong_sums(dsn: str, stripe_events: Sequence[Mapping[str, Any]]) -> list[str]:
    """Nothing, when all of it is the sum of the rows. `stripe_events`: what the stand-in for Stripe accepted."""
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction(isolation="repeatable_read"):
            wrong = [row[0] for query in (HOURLY, KEYS, WINDOWS, OUTBOX) for row in await connection.fetch(query)]
            outbox = [dict(row) for row in await connection.fetch(EVENTS)]
    finally:
        await connection.close()
    return wrong + _wrong_at_stripe(outbox, stripe_events)


def _wrong_at_stripe(outbox: Sequence[Mapping[str, Any]], accepted: Sequence[Mapping[str, Any]]) -> list[str]:
    """Stripe has what is delivered, once; of what is still on its way it may have some."""
    counted, owed = Counter[str](), Counter[str]()
    by_name = {event["identifier"]: event for event in outbox}
    on_its_way = {name for name, event in by_name.items() if event["state"] not in DELIVERED}
    for event in accepted:
        counted[event["customer"]] += 0 if event["identifier"] in on_its_way else int(event["value"])
    for event in by_name.values():
        owed[event["customer"]] += event["value"] if event["state"] in DELIVERED else 0
    return [
        f"Stripe has counted {counted[customer]} micro-USD of {customer}, {owed[customer]} were delivered"
        for customer in sorted(counted.keys() | owed.keys())
        if counted[customer] != owed[customer]
    ]
