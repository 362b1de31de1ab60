"""A database with history: rows as old months leave them, made by SQL. Nothing in it is left to do.

Only age differs between two of them: users, keys and customers are the same, and each slice of time is as full as the
others. So what reads more of the one with more slices reads history.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

USERS: Final = 20
PAYERS: Final = 10
"""Of the users: they pay at Stripe. What the others owe accrues."""
SLICE: Final = timedelta(days=120)
LAST_END: Final = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=3)
"""Where the latest slice ends: nothing of it is due any more."""

_PEOPLE: Final = """
with made as (
  insert into users (email, stripe_customer_id)
  select 'aged-' || lpad(n::text, 4, '0') || '@example.com', ($2::text[])[n] from generate_series(1, $1::integer) n
  returning id
)
insert into api_keys (user_id, unkey_key_id, name) select id, 'key_' || id, 'aged' from made
"""
_MEETINGS: Final = """
insert into meetings (user_id, room_name, daily_meeting_id, status, started_at, ended_at, created_at)
select p.id, 'room-' || n % 50, 'm-' || extract(epoch from $1::timestamptz) || '-' || n, 'ended', at,
  at + interval '1 hour', at
from (select n, $1::timestamptz + n * ($2::timestamptz - $1::timestamptz) / $3::integer as at
  from generate_series(0, $3::integer - 1) n) each
join (select id, row_number() over (order by email) - 1 as number, count(*) over () as all from users) p
  on p.number = n % p.all
"""
_PARTICIPANTS: Final = """
insert into participants (meeting_id, daily_participant_id, joined_at, left_at, created_at, anonymised_at)
select id, 'p-' || daily_meeting_id, started_at, ended_at, started_at, ended_at from meetings
where started_at >= $1 and started_at < $2
"""
_ROOMS: Final = """
insert into rooms (room_name, user_id, meeting_id, state, started_at, ended_at, created_at, expires_at, expired_at)
select room_name, user_id, id, 'expired', started_at, ended_at, started_at, ended_at, ended_at from meetings
where started_at >= $1 and started_at < $2
"""
# UUIDv7 in the order of time; one row in twenty is an estimate of a stored response.
_LEDGER: Final = """
insert into openai_usage (id, user_id, api_key_id, customer_id, meeting_id, endpoint, model, service_tier, evidence,
  prompt_tokens, completion_tokens, total_tokens, cost_usd, billed_usd, price_version, cost_lines, usage, response_id,
  request_id, metadata, started_at, completed_at, booked_at)
select (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '7000'
    || translate(substr(md5(n::text), 1, 1), '0123456789abcdef', '89ab89ab89ab89ab')
    || substr(md5(n || 'x'), 1, 15))::uuid,
  p.id, p.key, p.customer_id, null, case when n % 3 = 0 then 'responses' else 'chat' end, 'gpt-5-mini', 'default',
  case when n % 60 = 0 then 'estimated' else 'reported' end, 100, 20, 120, 0.000025, 0.00003, '2026-11-22',
  '[{"unit": "input", "quantity": "100", "usd_per_unit": "0.00000025", "usd": "0.000025"}]',
  '{"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}',
  case when n % 3 = 0 then 'resp_' else 'chatcmpl-' end || extract(epoch from at) || '-' || n,
  'req_' || extract(epoch from at) || '-' || n, '{"status": 200}', at - interval '2 seconds', at, at
from (select n, $1::timestamptz + n * ($2::timestamptz - $1::timestamptz) / $3::integer as at
  from generate_series(0, $3::integer - 1) n) each
join (select u.id, k.id as key, c.customer_id, row_number() over (order by u.email) - 1 as number,
    count(*) over () as all
  from users u join api_keys k on k.user_id = u.id
  left join user_customers c on c.user_id = u.id and c.valid_to is null) p on p.number = n % p.all
"""
_HOURLY: Final = """
insert into usage_hourly (user_id, hour, api_key_id, meeting_id, model, endpoint, service_tier, evidence, calls, rows,
  prompt_tokens, completion_tokens, total_tokens, cost_usd, billed_usd)
select user_id, date_bin('1 hour', completed_at, timestamptz 'epoch'), api_key_id, meeting_id, model, endpoint,
  service_tier, evidence, count(*), count(*), sum(prompt_tokens), sum(completion_tokens), sum(total_tokens),
  sum(cost_usd), sum(billed_usd)
from openai_usage where completed_at >= $1 and completed_at < $2 group by 1, 2, 3, 4, 5, 6, 7, 8
"""
_OBJECTS: Final = """
insert into upstream_objects (object_id, kind, user_id, api_key_id, event_id, created_at)
select response_id, 'response', user_id, api_key_id, id, completed_at from openai_usage
where endpoint = 'responses' and completed_at >= $1 and completed_at < $2
"""
_ITEMS: Final = """
insert into open_items (id, kind, upstream_id, user_id, api_key_id, endpoint, model, state, opened_at, next_poll_at,
  settled_at)
select id, 'estimate', response_id, user_id, api_key_id, endpoint, model, 'given_up', started_at, completed_at,
  completed_at
from openai_usage where evidence = 'estimated' and completed_at >= $1 and completed_at < $2
"""
_WINDOWS_FROZEN: Final = """
update billing_windows set frozen_nano = billed_nano where customer_id is not null and open and window_start < $2
  and window_start >= $1::timestamptz - interval '1 hour'
"""
_EVENTS: Final = """
insert into stripe_meter_events (customer_id, customer, meter, window_start, window_seconds, seq, value, nano,
  carry_nano_after, event_timestamp, identifier, state, attempts, first_attempt_at, delivered_at, created_at, account)
select c.id, c.stripe_customer_id, 'openai_usage_micro_usd', at, 3600, n, 5, 5000, 0, at + interval '3599 seconds',
  'sent:' || extract(epoch from at) || ':' || n, 'sent', 1, at + interval '1 hour', at + interval '1 hour',
  at + interval '1 hour', 'acct_1'
from (select n, $1::timestamptz + n * ($2::timestamptz - $1::timestamptz) / $3::integer as at
  from generate_series(0, $3::integer - 1) n) each
join (select id, stripe_customer_id, row_number() over (order by id) - 1 as number, count(*) over () as all
  from customers where stripe_customer_id is not null) c on c.number = n % c.all
"""
_ATTEMPTS: Final = """
insert into stripe_attempts (event_id, n, at, identifier, idempotency_key, outcome, http_status)
select id, 1, delivered_at, identifier, identifier, 'delivered', 200 from stripe_meter_events
where window_start >= $1 and window_start < $2
"""
_WEBHOOKS: Final = """
insert into webhook_inbox (source, event_id, event_type, occurred_at, body, received_at, processed_at, next_attempt_at,
  lapsed_at, about)
select case when n % 4 = 0 then 'stripe' else 'daily' end, 'evt_' || extract(epoch from at) || '_' || n,
  'meeting.ended', at, '', at, at, at, case when n % 10 = 1 then at end, 'm-' || n
from (select n, $1::timestamptz + n * ($2::timestamptz - $1::timestamptz) / $3::integer as at
  from generate_series(0, $3::integer - 1) n) each
"""
_QUARANTINE: Final = """
insert into usage_quarantine (event_id, raw, reason, kind, created_at, resolved_at, resolution)
select 'event-' || extract(epoch from at) || n, convert_to(at || '-' || n, 'UTF8'), 'a test', 'test', at, at, 'a test'
from (select n, $1::timestamptz + n * ($2::timestamptz - $1::timestamptz) / $3::integer as at
  from generate_series(0, $3::integer - 1) n) each
"""
_OLD_WINDOWS: Final = """
insert into stripe_windows (user_id, meter, window_start, window_seconds, nano, frozen_nano)
select user_id, meter, window_start, window_seconds, billed_nano, billed_nano from billing_windows
where user_id is not null and window_start >= $1 and window_start < $2
"""


async def make_people(connection: Any, customers: Sequence[str]) -> list[UUID]:
    """The users of all slices, by address; the first of them are these customers of Stripe's."""
    await connection.execute(_PEOPLE, USERS, list(customers))
    return [row["id"] for row in await connection.fetch("select id from users order by email")]


async def add_slice(connection: Any, age: int, *, rows: int, events: int) -> None:
    """One slice of time, `age` slices before the latest: so many rows of the ledger, and events of the outbox."""
    until = LAST_END - age * SLICE
    span = (until - SLICE, until)
    await connection.execute(_MEETINGS, *span, rows // 20)
    for statement in (_PARTICIPANTS, _ROOMS):
        await connection.execute(statement, *span)
    await connection.execute(_LEDGER, *span, rows, timeout=600)
    await connection.execute("delete from units_due")
    await connection.execute("alter table stripe_windows disable trigger user")
    for statement in (_HOURLY, _OBJECTS, _ITEMS, _WINDOWS_FROZEN, _OLD_WINDOWS):
        await connection.execute(statement, *span)
    await connection.execute("alter table stripe_windows enable trigger user")
    await connection.execute(_EVENTS, *span, events)
    await connection.execute(_ATTEMPTS, *span)
    await connection.execute(_WEBHOOKS, *span, rows // 5)
    await connection.execute(_QUARANTINE, *span, rows // 100)
