-- What a database is for: the sandbox's calls, or real customers. Set once, by the first `serve`, `worker` or `up`.
create table public.database_mark (
  is_one boolean primary key default true check (is_one),
  kind text not null check (kind in ('sandbox', 'production')),
  marked_by text not null, -- the command
  marked_at timestamptz not null default now()
);
alter table public.database_mark enable row level security;

-- The Stripe account that an event is for (of a test key with `/test` after it); it is sent under no other. NULL: frozen
-- before this was kept, and not sent since.
alter table public.stripe_meter_events add column account text;
