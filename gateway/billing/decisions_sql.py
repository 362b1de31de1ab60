"""The queries behind a person's decisions, each with one sentence. Must not be built from input."""

from typing import Final

# Events in some states, newest first, with whose they are; $2: one of them, $3: of those whose error holds this.
HELD: Final = """
select e.id, e.identifier, e.customer, c.name as customer_name, (
    select string_agg(o.email, ', ' order by o.email) from (
      select u.email from public.users u where u.id = e.user_id
      union
      select u.email from public.user_customers t join public.users u on u.id = t.user_id
      where t.customer_id = e.customer_id order by 1 limit 3
    ) o
  ) as emails,
  e.meter, e.window_start, e.seq, e.value, e.event_timestamp, e.state, e.reason, e.attempts, e.last_error, e.created_at,
  e.delivered_at, e.first_attempt_at,
  (
    select max(a.at) from public.stripe_attempts a where a.event_id = e.id and a.outcome not in ('not_sent', 'refiled')
  ) as last_attempt_at
from public.stripe_meter_events e left join public.customers c on c.id = e.customer_id
where e.state = any($1::text[]) and ($2::text is null or e.identifier = $2)
  and ($3::text is null or position(lower($3) in lower(coalesce(e.last_error, ''))) > 0)
order by e.id desc limit $4
"""

# What was sent for a customer's hour, but for the event $5.
HOUR: Final = """
select coalesce(sum(value) filter (where state in ('sent', 'duplicate')), 0)::bigint as delivered,
  coalesce(array_agg(value order by id) filter (where attempts > 0
    and state in ('unknown', 'rejected', 'unreportable', 'settled', 'written_off')), '{}') as undecided,
  max(greatest(delivered_at, (
    select max(a.at) from public.stripe_attempts a where a.event_id = e.id and a.outcome not in ('not_sent', 'refiled')
  ))) as last_at,
  coalesce(bool_or(state = 'pending' and attempts > 0), false) as is_sending
from public.stripe_meter_events e
where customer = $1 and meter = $2 and event_timestamp >= $3 and event_timestamp < $4 and id <> $5::bigint
"""

# The event, if it is still as it was when it was judged.
LOCK: Final = """
select * from public.stripe_meter_events where id = $1 and state = $2 and attempts = $3 for update
"""

# What a person has decided, and why.
DECIDED: Final = """
insert into public.stripe_decisions (event_id, who, action, why, reference, evidence)
values ($1, $2, $3, $4, $5, $6::jsonb)
"""

# The event ends in a state; $3: when it counts as delivered, $4: what took its place.
END: Final = """
update public.stripe_meter_events
set state = $2, delivered_at = $3, settled_ref = $4, next_attempt_at = null, leased_until = null,
  last_error = coalesce($5, last_error)
where id = $1
"""

# Customers to whom corrections owe something that no period could take back yet.
CREDIT_DUE: Final = """
select c.stripe_customer_id as customer, c.name, b.meter, b.credit_due_nano as nano
from public.billing_carry b join public.customers c on c.id = b.customer_id
where b.credit_due_nano > 0 order by b.credit_due_nano desc, 1 limit $1
"""
