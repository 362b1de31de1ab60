-- A period of Stripe's may end inside a window: then the window has two parts, and each is frozen into its own period. What
-- is frozen of the first part has to be known, because usage that comes later may belong to either.
alter table public.billing_windows add column early_nano bigint not null default 0; -- the part of frozen_nano that is the first part's
