-- Reads every event once, while others go on writing.
alter table public.stripe_meter_events validate constraint stripe_meter_events_reason_known;
alter table public.stripe_meter_events validate constraint stripe_meter_events_state_known;
alter table public.stripe_meter_events validate constraint stripe_meter_events_delivered;
alter table public.stripe_meter_events validate constraint stripe_meter_events_settled;
alter table public.stripe_meter_events validate constraint stripe_meter_events_replaces_fkey;
alter table public.stripe_meter_events validate constraint stripe_meter_events_has_payer;
