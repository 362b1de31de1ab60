-- Events that wait for a person.
create index stripe_meter_events_held_idx on public.stripe_meter_events (id)
  where state in ('rejected', 'unknown', 'unreportable');
