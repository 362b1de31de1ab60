-- Whether any subscription was read by `gateway stripe sync`: asked for each customer whose windows are frozen, and where there
-- is none, all of them were read.
create index if not exists stripe_subscriptions_read_idx on public.stripe_subscriptions (item) where seen_event is null;
