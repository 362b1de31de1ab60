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
with w as (select user_id, window_start, window_seconds, nano from stripe_windows),
l as (select w.user_id, w.window_start, sum(u.billed_usd) * 1000000000 as nano from w
  join openai_usage u on u.user_id = w.user_id and u.completed_at >= w.window_start
    and u.completed_at < w.window_start + w.window_seconds * interval '1 second'
  group by 1, 2)
select 'window ' || w.window_start || ' holds ' || w.nano || ' of ' || coalesce(l.nano, 0)
from w left join l using (user_id, window_start) where w.nano <> coalesce(l.nano, 0)
union all
select 'windows of ' || user_id || ' lack some of ' || owed from
  (select user_id, sum(billed_usd) * 1000000000 as owed from openai_usage group by 1) o
where owed <> (select coalesce(sum(nano), 0) from w where w.user_id = o.user_id)
"""
OUTBOX: Final = """
select 'outbox of ' || w.user_id || ' covers ' || e.nano + c.nano || ' of ' || w.nano from
  (select user_id, meter, sum(frozen_nano) as nano from stripe_windows group by 1, 2) w
  join lateral (select coalesce(sum(value), 0) * 1000 as nano from stripe_meter_events
    where user_id = w.user_id and meter = w.meter) e on true
  join lateral (select coalesce(sum(nano), 0) as nano from stripe_carry
    where user_id = w.user_id and meter = w.meter) c on true
where w.nano <> e.nano + c.nano
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
