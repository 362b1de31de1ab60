-- The oldest event that waits, of each customer and meter: found by jumping from one to the next.
create index stripe_meter_events_waiting_idx on public.stripe_meter_events (customer, meter, id) where state = 'pending';
