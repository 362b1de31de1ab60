"""The queries with which delivered events are cancelled and due credit is settled, each with one sentence."""

from typing import Final

# Why an event's invoice takes nothing back: it is final, or may be by now ($2) although nobody has told us.
INVOICED: Final = """
select coalesce(
  (
    select 'it is on the final invoice ' || i.id from public.stripe_invoices i
    where i.customer = e.customer and i.period_start <= e.event_timestamp and i.period_end > e.event_timestamp
      and i.finalized_at is not null
    limit 1
  ),
  case when e.file_before <= $2 then 'the invoice of its period may be final by now' end
)
from public.stripe_meter_events e where e.id = $1
"""

# The window that an event covers.
WINDOW_OF: Final = """
select w.id from public.stripe_meter_events e
join public.billing_windows w on w.meter = e.meter and w.window_start = e.window_start
  and (w.customer_id = e.customer_id and e.user_id is null or w.user_id = e.user_id and w.customer_id is null)
where e.id = $1
"""

# Whether a row's month is sealed, and the delivered events of the window in which a correction of it would be booked at
# that instant.
OF_ROW: Final = """
select u.booked_at < b.sealed_until as is_sealed, array(
    select e.identifier from public.billing_windows w
    join public.stripe_meter_events e on e.customer_id = w.customer_id and e.user_id is null and e.meter = w.meter
      and e.window_start = w.window_start
    where w.customer_id = u.customer_id and w.meter = b.meter and w.window_start <= u.booked_at
      and w.window_start + w.window_seconds * interval '1 second' > u.booked_at
      and e.state in ('sent', 'duplicate')
    order by e.id
  ) as identifiers
from public.openai_usage u cross join public.books b where u.id = $1::uuid and u.books_version > 0
"""

# Gives an event's amount back to its window, or to the first part of it, where that was its own.
UNFREEZE: Final = """
update public.billing_windows w set frozen_nano = w.frozen_nano - $2,
  early_nano = w.early_nano - case when e.window_seconds < w.window_seconds then $2 else 0 end, updated_at = now()
from public.stripe_meter_events e
where e.id = $1 and w.meter = e.meter and w.window_start = e.window_start
  and (w.customer_id = e.customer_id and e.user_id is null or w.user_id = e.user_id and w.customer_id is null)
"""

# The event counts no more; when it was delivered stays. Nothing where somebody has cancelled it meanwhile.
CANCELLED: Final = """
update public.stripe_meter_events set state = 'cancelled', last_error = 'cancelled at Stripe'
where id = $1 and state in ('sent', 'duplicate') returning id
"""

# What a person has decided, and why.
DECIDED: Final = """
insert into public.stripe_decisions (event_id, who, action, why, reference) values ($1, $2, $3, $4, $5)
"""

# What is due to a customer, and locked for whoever settles it.
DUE_OF: Final = """
select b.customer_id, b.meter, b.nano, b.credit_due_nano
from public.billing_carry b join public.customers c on c.id = b.customer_id
where c.stripe_customer_id = $1 and b.credit_due_nano > 0 order by b.meter for update of b
"""

# A credit note took the event's place.
SETTLED: Final = """
update public.stripe_meter_events set state = 'settled', settled_ref = $2 where identifier = $1 returning id
"""

# What stays due.
LEAVE_DUE: Final = """
update public.billing_carry set credit_due_nano = $3, updated_at = now() where customer_id = $1 and meter = $2
"""
