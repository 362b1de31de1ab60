"""The queries with which overdue events are filed anew, each with one sentence. Must not be built from input."""

from typing import Final


def _head(after: str) -> str:
    """The oldest pending event of the next customer and meter. $1: now; $2: see OVERDUE."""
    return f"""
  select e.customer, e.meter, e.id,
    e.next_attempt_at <= $1 and (coalesce(e.file_before <= $1, e.event_timestamp < $2)
      or e.value < 0 and e.first_attempt_at is null) as is_looked_at
  from public.stripe_meter_events e
  where e.state = 'pending' and (e.customer, e.meter) > ({after}) and (e.account is null or e.account = $3)
  order by e.customer, e.meter, e.id limit 1
"""  # noqa: S608 - only constants of this file are put in


# Customers and meters whose oldest pending event is too late for its period, or takes something back that the period
# may not have any more, and is not being sent. $2: the first month whose invoice is not final, for events of a version
# that did not note when they become late.
OVERDUE: Final = f"""
with recursive head as (
  ({_head("'', ''")})
  union all
  select n.* from head h cross join lateral ({_head("h.customer, h.meter")}) n
)
select customer, meter from head where is_looked_at limit $4
"""  # noqa: S608 - constants of this file

# Those of one customer and meter, oldest first.
OVERDUE_OF: Final = """
select e.*, coalesce(e.file_before <= $3, e.event_timestamp < $4) as is_overdue from public.stripe_meter_events e
where e.customer = $1 and e.meter = $2 and e.state = 'pending' and e.next_attempt_at <= $3
  and (e.account is null or e.account = $5)
  and (coalesce(e.file_before <= $3, e.event_timestamp < $4) or e.value < 0 and e.first_attempt_at is null)
order by e.id for update of e skip locked
"""

# It may have arrived: a person compares. Whoever claimed it and said nothing has lost it.
DOUBT: Final = """
with lost as (
  insert into public.stripe_attempts (event_id, n, at, identifier, idempotency_key, outcome)
  select id, attempts, leased_until, identifier, identifier, 'lost' from public.stripe_meter_events
  where id = $1 and leased_until is not null
)
update public.stripe_meter_events set state = 'unknown', next_attempt_at = null, leased_until = null, last_error = $2
where id = $1
"""

# Who pays for a customer of Stripe's. The lock is the one with which windows are frozen.
LOCK_PAYER: Final = """
insert into public.billing_carry as b (customer_id, meter)
select c.id, $2 from public.customers c where c.stripe_customer_id = $1
on conflict (customer_id, meter) do update set updated_at = now() returning b.customer_id
"""

# What a period cannot take back is due to the customer.
ADD_DUE: Final = """
update public.billing_carry set credit_due_nano = credit_due_nano + $3, updated_at = now()
where customer_id = $1 and meter = $2
"""

# Another event has its amount, or it has become credit due.
SUPERSEDE: Final = """
with noted as (
  insert into public.stripe_attempts (event_id, n, at, identifier, outcome, error)
  select id, attempts, $2, identifier, 'refiled', $3 from public.stripe_meter_events where id = $1
)
update public.stripe_meter_events
set state = 'superseded', next_attempt_at = null, leased_until = null, last_error = $3 where id = $1
"""
