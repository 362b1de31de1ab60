"""The outbox's queries, each with one sentence. Must not be built from input: everything is a parameter."""

from typing import Final


# Only the oldest pending event of a customer and meter is ever handed out: Stripe takes one call at a time for them.
# These heads are found by jumping from one customer and meter to the next in the index of what waits, so that the cost
# goes by heads looked at, and not by what waits behind them. What is for another Stripe account stays where it is; what
# was frozen before accounts were kept belongs to the one that is asked first.
def _head(after: str, account: str) -> str:
    """The oldest pending event of the next customer and meter, of an account."""
    return f"""
  select e.customer, e.meter, e.id, e.next_attempt_at, e.first_attempt_at, e.file_before
  from public.stripe_meter_events e
  where e.state = 'pending' and (e.customer, e.meter) > ({after}) and (e.account is null or e.account = {account})
  order by e.customer, e.meter, e.id limit 1
"""  # noqa: S608 - only constants of this file are put in


# PostgreSQL's clock.
NOW: Final = "select clock_timestamp()"

_ANY: Final = "coalesce($3, e.account)"

# Gives up on events that may have arrived, once Stripe may have forgotten their identifier. One in doubt is a head.
EXPIRE: Final = f"""
with recursive head as (
  ({_head(after="'', ''", account=_ANY)})
  union all
  select n.* from head h cross join lateral ({_head(after="h.customer, h.meter", account=_ANY)}) n
), old as (
  select e.id, e.attempts, e.identifier, e.leased_until from public.stripe_meter_events e
  where e.id = any(array(select id from head where first_attempt_at <= $1 and next_attempt_at <= $2))
    and e.state = 'pending' and e.first_attempt_at <= $1 and e.next_attempt_at <= $2
  order by e.id for update of e skip locked
), lost as (
  insert into public.stripe_attempts (event_id, n, at, identifier, idempotency_key, outcome)
  select id, attempts, leased_until, identifier, identifier, 'lost' from old where leased_until is not null
)
update public.stripe_meter_events e
set state = 'unknown', next_attempt_at = null, leased_until = null,
  last_error = 'in doubt for too long, not sent again; last: ' || coalesce(e.last_error, 'no answer was recorded')
from old where e.id = old.id
"""  # noqa: S608 - constants of this file
# Not in doubt for too long, and not too late for its period: those are for EXPIRE, and for refiling.
_DUE: Final = """coalesce({0}.next_attempt_at <= $1 and ({0}.first_attempt_at is null or {0}.first_attempt_at > $4)
    and ({0}.file_before is null or {0}.file_before > $1), false)"""

# Leases heads that are due, behind ($6, $7) and up to ($8, $9), and says which head was the last one looked at. While
# one is leased (next_attempt_at ahead), its successors wait. Whoever claimed it before and said nothing has lost it.
CLAIM: Final = f"""
with recursive head as (
  select n.*, ({_DUE.format("n")})::int as due
  from ({_head(after="$6, $7", account="$5")}) n
  union all
  select n.*, h.due + ({_DUE.format("n")})::int
  from head h cross join lateral ({_head(after="h.customer, h.meter", account="$5")}) n
  where h.due < $3 and ($8::text is null or (h.customer, h.meter) < ($8, $9::text))
), due as (
  select e.id, e.first_attempt_at, e.leased_until, e.attempts, e.identifier from public.stripe_meter_events e
  where e.id = any(array(select id from head where next_attempt_at <= $1))
    and e.state = 'pending' and {_DUE.format("e")}
  order by e.id for update of e skip locked
), lost as (
  insert into public.stripe_attempts (event_id, n, at, identifier, idempotency_key, outcome)
  select id, attempts, leased_until, identifier, identifier, 'lost' from due where leased_until is not null
), claimed as (
  update public.stripe_meter_events e
  set attempts = e.attempts + 1, first_attempt_at = coalesce(e.first_attempt_at, $1), next_attempt_at = $2,
    leased_until = $2, account = $5
  from due where e.id = due.id
  returning e.id, e.attempts, due.first_attempt_at as doubt_since,
    e.meter, e.customer, e.value, e.identifier, e.event_timestamp
)
select last.customer as last_customer, last.meter as last_meter, last.due as found, c.*
from (select customer, meter, due from head order by customer desc, meter desc limit 1) last left join claimed c on true
"""  # noqa: S608

# Events that wait for another Stripe account than $1.
OF_OTHERS: Final = """
select account, sum(events)::bigint as count from public.outbox_totals
where state = 'pending' and account <> $1 group by account having sum(events) <> 0 order by account
"""

# Meters with events that wait for the account $1.
METERS_WAITING: Final = """
select meter from public.outbox_totals where state = 'pending' and (account is null or account = $1)
group by meter having sum(events) > 0 order by meter
"""


def _noted() -> str:
    """What became of one attempt: $1 is the event's id, $2 the attempt's number."""
    return """
with noted as (
  insert into public.stripe_attempts
    (event_id, n, at, identifier, idempotency_key, outcome, http_status, stripe_request_id, error)
  values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
)
"""


# A delivery is true whoever reports it, as long as the row still has the identifier that was sent.
MARK_DELIVERED: Final = f"""{_noted()}
update public.stripe_meter_events
set state = $10, delivered_at = $3, next_attempt_at = null, leased_until = null, last_error = null
where id = $1 and identifier = $4 and state in ('pending', 'unknown')
"""  # noqa: S608 - a constant of this file

# Stripe's no; ignored from a worker whose lease has run out.
MARK_REJECTED: Final = f"""{_noted()}
update public.stripe_meter_events set state = 'rejected', next_attempt_at = null, leased_until = null, last_error = $9
where id = $1 and attempts = $2 and state = 'pending'
"""  # noqa: S608

# Due again later; ignored from a worker whose lease has run out.
MARK_RETRY: Final = f"""{_noted()}
update public.stripe_meter_events
set next_attempt_at = $10, leased_until = null, last_error = $9, first_attempt_at = $11
where id = $1 and attempts = $2 and state = 'pending'
"""  # noqa: S608

# Events and micro-USD per state. Nobody counts the outbox itself, which only grows.
COUNTS: Final = """
select state, sum(events)::bigint as count, sum(value)::bigint as value from public.outbox_totals
group by state having sum(events) <> 0
"""

# Since when the oldest undelivered event has waited.
OLDEST: Final = "select min(created_at) from public.stripe_meter_events where state = 'pending'"

# Users who owe something that no customer pays, found by jumping from one to the next in the index of what has accrued:
# where nobody pays, windows stay open for ever.
UNPAID_USERS: Final = """
with recursive payee as (
  (
    select user_id from public.billing_windows where open and customer_id is null
    order by user_id, meter, window_start limit 1
  )
  union all
  select n.user_id from payee p cross join lateral (
    select w.user_id from public.billing_windows w where w.open and w.customer_id is null and w.user_id > p.user_id
    order by w.user_id, w.meter, w.window_start limit 1
  ) n
)
select count(*) from payee
"""

# Whom events are for.
CUSTOMERS_OF: Final = """
select distinct customer from public.stripe_meter_events where identifier = any($1::text[]) order by customer
"""
