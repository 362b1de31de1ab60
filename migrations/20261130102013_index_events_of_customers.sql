-- The events of a payer.
create index stripe_meter_events_customer_id_idx on public.stripe_meter_events (customer_id, meter, window_start)
  where customer_id is not null;
