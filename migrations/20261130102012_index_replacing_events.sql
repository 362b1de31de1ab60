-- Which event took another one's place.
create index stripe_meter_events_replaces_idx on public.stripe_meter_events (replaces) where replaces is not null;
