-- What stands around the ledger: roll-up, billing windows and outbox, quarantine, ownership, open items, inbox.
-- Amounts in `nano` columns are nano-USD (1e-9 USD). Nothing here may hold a prompt, an answer or a key.

-- Sums of openai_usage per UTC hour of completed_at; only ever fed by the transaction that inserts the rows.
create table public.usage_hourly (
  hour timestamptz not null,
  user_id uuid not null references public.users (id) on delete restrict,
  api_key_id uuid references public.api_keys (id) on delete restrict,
  meeting_id uuid references public.meetings (id) on delete restrict,
  model text not null,
  endpoint text not null,
  service_tier text,
  evidence text not null,
  calls bigint not null default 0, -- rows that adjust nothing
  rows bigint not null default 0,
  prompt_tokens bigint not null default 0,
  completion_tokens bigint not null default 0,
  total_tokens bigint not null default 0,
  cost_usd numeric(28, 9) not null default 0,
  billed_usd numeric(28, 9) not null default 0,
  constraint usage_hourly_key unique nulls not distinct
    (user_id, hour, api_key_id, meeting_id, model, endpoint, service_tier, evidence)
) with (fillfactor = 70);
create index usage_hourly_hour_idx on public.usage_hourly (hour);
create index usage_hourly_api_key_id_idx on public.usage_hourly (api_key_id, hour);
create index usage_hourly_meeting_id_idx on public.usage_hourly (meeting_id, hour) where meeting_id is not null;
create index usage_hourly_model_idx on public.usage_hourly (model, hour);

-- What a user owes per meter and window of completed_at. The Stripe customer is looked up when a window is
-- frozen, so usage of a user who has none yet accrues (docs/decisions/0001-stripe-windows-by-user.md).
create table public.stripe_windows (
  user_id uuid not null references public.users (id) on delete restrict,
  meter text not null, -- Stripe's event_name
  window_start timestamptz not null,
  window_seconds integer not null check (window_seconds > 0),
  nano bigint not null default 0, -- sum of billed_usd so far
  frozen_nano bigint not null default 0, -- the part that outbox rows already cover
  next_seq integer not null default 0,
  updated_at timestamptz not null default now(),
  unfrozen boolean not null generated always as (nano <> frozen_nano) stored,
  primary key (user_id, meter, window_start)
) with (fillfactor = 70);
-- Indexing the generated flag rather than the amounts keeps the amount's updates in-page.
create index stripe_windows_unfrozen_idx on public.stripe_windows (window_start) where unfrozen;

-- Less than a whole micro-USD that is left over when a window is frozen, for the next one.
create table public.stripe_carry (
  user_id uuid not null references public.users (id) on delete restrict,
  meter text not null,
  nano bigint not null default 0,
  updated_at timestamptz not null default now(),
  primary key (user_id, meter)
);

-- The outbox: one frozen amount per row, sent to Stripe under `identifier` until Stripe is known to have it.
create table public.stripe_meter_events (
  id bigint generated always as identity primary key,
  user_id uuid not null references public.users (id) on delete restrict,
  customer text not null,
  meter text not null,
  window_start timestamptz not null,
  window_seconds integer not null check (window_seconds > 0),
  seq integer not null,
  value bigint not null, -- whole micro-USD, as sent
  nano bigint not null, -- nano-USD of the window that this row covers
  carry_nano_after bigint not null,
  event_timestamp timestamptz not null,
  identifier text not null unique check (length(identifier) between 1 and 100),
  state text not null default 'pending',
  attempts integer not null default 0,
  first_attempt_at timestamptz,
  next_attempt_at timestamptz,
  last_error text,
  delivered_at timestamptz,
  created_at timestamptz not null default now(),
  constraint stripe_meter_events_state_known
    check (state in ('pending', 'sent', 'duplicate', 'rejected', 'unknown')),
  constraint stripe_meter_events_delivered check ((delivered_at is not null) = (state in ('sent', 'duplicate'))),
  unique (user_id, meter, window_start, seq)
);
create index stripe_meter_events_due_idx on public.stripe_meter_events (next_attempt_at, id)
  where state in ('pending', 'unknown');
create index stripe_meter_events_customer_idx on public.stripe_meter_events (customer, meter, event_timestamp);
create index stripe_meter_events_state_idx on public.stripe_meter_events (state, created_at);

-- Stream entries that could not become a ledger row, byte for byte; the same bytes are kept once.
create table public.usage_quarantine (
  id bigint generated always as identity primary key,
  event_id text, -- as the stream entry names it; need not be a uuid
  raw bytea not null,
  digest bytea not null generated always as (sha256(raw)) stored unique,
  reason text not null,
  sqlstate text,
  created_at timestamptz not null default now(),
  resolved_at timestamptz,
  resolution text
);
create index usage_quarantine_event_id_idx on public.usage_quarantine (event_id);
create index usage_quarantine_open_idx on public.usage_quarantine (created_at) where resolved_at is null;

-- Monotone counters, one row per slot of connections so that writers do not queue for one row:
-- entries_read = inserted + duplicates + quarantined, in every row, always.
create table public.flush_counters (
  slot smallint primary key,
  entries_read bigint not null default 0,
  inserted bigint not null default 0,
  duplicates bigint not null default 0,
  quarantined bigint not null default 0,
  updated_at timestamptz not null default now()
) with (fillfactor = 20);

-- Who owns which object at OpenAI (a response, file, batch …): to anyone else it does not exist.
create table public.upstream_objects (
  object_id text primary key,
  kind text not null,
  user_id uuid not null references public.users (id) on delete restrict,
  api_key_id uuid references public.api_keys (id) on delete restrict,
  event_id uuid,
  metadata jsonb not null default '{}',
  created_at timestamptz not null default now(),
  deleted_at timestamptz
);
create index upstream_objects_user_id_idx on public.upstream_objects (user_id, created_at);
create index upstream_objects_api_key_id_idx on public.upstream_objects (api_key_id);

-- Work at OpenAI that still has to settle: batches, background responses, videos, fine-tunes.
create table public.open_items (
  id uuid primary key, -- the event id of the call that began it
  kind text not null,
  upstream_id text not null,
  user_id uuid not null references public.users (id) on delete restrict,
  api_key_id uuid references public.api_keys (id) on delete restrict,
  meeting_id uuid references public.meetings (id) on delete restrict,
  endpoint text not null,
  model text,
  service_tier text,
  state text not null default 'open' check (state in ('open', 'settled', 'given_up')),
  opened_at timestamptz not null,
  next_poll_at timestamptz not null,
  polls integer not null default 0,
  last_error text,
  settled_at timestamptz,
  metadata jsonb not null default '{}',
  unique (kind, upstream_id)
);
create index open_items_due_idx on public.open_items (next_poll_at) where state = 'open';
create index open_items_user_id_idx on public.open_items (user_id, opened_at);
create index open_items_api_key_id_idx on public.open_items (api_key_id);
create index open_items_meeting_id_idx on public.open_items (meeting_id) where meeting_id is not null;

-- Webhooks, stored before they are answered; a repeat has the same key.
create table public.webhook_inbox (
  source text not null check (source in ('daily', 'stripe', 'openai')),
  event_id text not null,
  event_type text not null,
  occurred_at timestamptz,
  body bytea not null,
  received_at timestamptz not null default now(),
  processed_at timestamptz,
  attempts integer not null default 0,
  last_error text,
  primary key (source, event_id)
);
create index webhook_inbox_waiting_idx on public.webhook_inbox (received_at) where processed_at is null;

-- Spending limits per user, or per key of a user.
create table public.budgets (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null references public.users (id) on delete restrict,
  api_key_id uuid references public.api_keys (id) on delete restrict,
  period text not null check (period in ('day', 'month', 'total')),
  limit_usd numeric(20, 9) not null check (limit_usd >= 0),
  is_hard boolean not null default true,
  is_active boolean not null default true,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint budgets_key unique nulls not distinct (user_id, api_key_id, period)
);
create index budgets_api_key_id_idx on public.budgets (api_key_id);
create trigger budgets_updated_at before update on public.budgets
  for each row execute function public.set_updated_at();

alter table public.usage_hourly enable row level security;
alter table public.stripe_windows enable row level security;
alter table public.stripe_carry enable row level security;
alter table public.stripe_meter_events enable row level security;
alter table public.usage_quarantine enable row level security;
alter table public.flush_counters enable row level security;
alter table public.upstream_objects enable row level security;
alter table public.open_items enable row level security;
alter table public.webhook_inbox enable row level security;
alter table public.budgets enable row level security;
