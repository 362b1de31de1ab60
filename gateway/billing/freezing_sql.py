"""The queries with which windows become outbox rows, each with one sentence. Must not be built from input."""

from typing import Final

# Customers with a closed window, found by jumping from one to the next in the index of open windows; $1: closed by
# then, $2: customers at most. One that is not at Stripe is skipped: the amounts accrue. So does what users owe while
# nobody pays for them, until somebody decides about it (accounts/link.py).
CLOSED: Final = """
with recursive payer as (
  (
    select w.customer_id, w.meter, w.window_start, w.window_seconds from public.billing_windows w
    where w.open and w.customer_id is not null order by w.customer_id, w.meter, w.window_start limit 1
  )
  union all
  select n.* from payer p cross join lateral (
    select w.customer_id, w.meter, w.window_start, w.window_seconds from public.billing_windows w
    where w.open and w.customer_id is not null and (w.customer_id, w.meter) > (p.customer_id, p.meter)
    order by w.customer_id, w.meter, w.window_start limit 1
  ) n
)
select p.customer_id, p.meter from payer p join public.customers c on c.id = p.customer_id
where c.stripe_customer_id is not null and p.window_start + p.window_seconds * interval '1 second' <= $1
limit $2
"""

# Makes the row that the lock below needs.
CARRY_ROW: Final = "insert into public.billing_carry (customer_id, meter) values ($1, $2) on conflict do nothing"
# This lock is what makes one worker at a time freeze for a customer; another one goes on to the next customer.
CARRY_LOCK: Final = """
select b.nano, b.credit_due_nano, c.stripe_customer_id as customer
from public.billing_carry b join public.customers c on c.id = b.customer_id
where b.customer_id = $1 and b.meter = $2 for update of b skip locked
"""

# The closed windows that a customer pays for, in time order: the order in which the ledger locks them too. Not locked:
# what the writer adds from now on is not frozen by this pass, because FREEZE_WINDOW adds what was read here.
WINDOWS: Final = """
select id, window_start, window_seconds, next_seq, billed_nano, credit_nano, frozen_nano, settled_nano, early_nano
from public.billing_windows
where open and customer_id = $1 and meter = $2 and window_start + window_seconds * interval '1 second' <= $3
order by window_start, id
"""

# What is frozen is covered by outbox rows of the same transaction, and by the carry.
FREEZE_WINDOW: Final = """
update public.billing_windows
set frozen_nano = frozen_nano + $2, early_nano = early_nano + $3, next_seq = greatest(next_seq, $4), updated_at = now()
where id = $1
"""

# The rest of less than a micro-USD, and what is owed to the customer beyond what its periods can take back.
FREEZE_CARRY: Final = """
update public.billing_carry set nano = $3, credit_due_nano = $4, updated_at = now()
where customer_id = $1 and meter = $2
"""

# Puts an event into the outbox, unless its identifier is taken.
INSERT_EVENT: Final = """
insert into public.stripe_meter_events (customer_id, user_id, customer, meter, window_start, window_seconds, seq, value,
  nano, carry_nano_after, event_timestamp, identifier, next_attempt_at, account, state, reason, original_window,
  last_error, replaces, file_before)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)
on conflict do nothing returning id
"""

# The customer's subscriptions with this meter, in Stripe's mode of the account.
SUBSCRIPTIONS: Final = """
select started_at, anchor, period_start, period_end, least(ended_at, removed_at) as ended_at
from public.stripe_subscriptions
where customer = $1 and meter = $2 and status not in ('incomplete', 'incomplete_expired')
order by started_at, item
"""
# Whether Stripe has been asked about all subscriptions (`gateway stripe sync`); a webhook tells of one only.
SYNCED: Final = "select exists (select from public.stripe_subscriptions where seen_event is null)"

# What a customer's period has, or is about to have, but for the event $5: the bound of what can be taken back from it.
# What is in doubt counts where it takes back, because Stripe may have it.
IN_PERIOD: Final = """
select coalesce(sum(value), 0)::bigint from public.stripe_meter_events
where customer = $1 and meter = $2 and event_timestamp >= $3 and event_timestamp < $4
  and (state in ('pending', 'sent', 'duplicate') or state = 'unknown' and value < 0) and id is distinct from $5::bigint
"""

# What was booked for a customer from $2 to $3. By the index of a user's rows in time; a row that was booked later than
# it was completed is in late_rows.
BEFORE_EDGE: Final = """
select coalesce(sum(billed_usd) * 1000000000, 0)::bigint from (
  select u.customer_id, u.billed_usd from public.openai_usage u
  where u.user_id in (
      select d.user_id from public.usage_daily d
      where d.day between ($2 at time zone 'UTC')::date and ($3 at time zone 'UTC')::date and d.customer_id = $1::uuid)
    and u.created_at >= $2 and u.created_at < $3 and u.booked_at = u.completed_at and u.books_version > 0
  union all
  select u.customer_id, u.billed_usd from public.late_rows l join public.openai_usage u on u.id = l.usage_id
  where l.booked_at >= $2 and l.booked_at < $3 and u.books_version > 0
) booked
where customer_id = $1::uuid
"""
