-- What Stripe has for our customers, as its API last told us: kept by webhooks, filled and repaired by `gateway stripe sync`.
-- Stripe's objects have no version, and its webhooks come in any order: each row is replaced only by an answer of Stripe
-- that was asked for later (`asked_at`, this database's clock). `seen_event` is the webhook that made us ask; NULL: sync.

-- One row per item of a subscription (a price, and with it a meter) and period: earlier periods stay.
create table public.stripe_subscriptions (
  item text not null,
  id text not null,
  customer text not null,
  price text not null,
  meter text, -- the event name of the price's meter, as in stripe_meter_events; NULL: the price has none
  meter_id text,
  currency text not null,
  status text not null, -- Stripe's; canceled and incomplete_expired have ended
  started_at timestamptz not null, -- usage from before is on no invoice
  anchor timestamptz not null,
  period_start timestamptz not null,
  period_end timestamptz not null,
  cancel_at timestamptz,
  ended_at timestamptz,
  removed_at timestamptz, -- when this item was found to be no longer in its subscription
  is_live boolean not null,
  asked_at timestamptz not null,
  seen_event text,
  primary key (item, period_start)
);
create index stripe_subscriptions_id_idx on public.stripe_subscriptions (id);
create index stripe_subscriptions_customer_idx on public.stripe_subscriptions (customer, meter, period_start);

create table public.stripe_invoices (
  id text primary key,
  number text,
  customer text not null,
  subscription text,
  status text not null, -- Stripe's: draft, open, paid, void, uncollectible; deleted: a draft that Stripe no longer has
  currency text not null,
  billing_reason text,
  period_start timestamptz not null,
  period_end timestamptz not null,
  subtotal bigint not null, -- amounts are in the currency's smallest unit, as Stripe has them
  total bigint not null,
  credited bigint not null default 0, -- by credit notes
  created_at timestamptz not null,
  finalized_at timestamptz,
  lines jsonb not null,
  is_live boolean not null,
  asked_at timestamptz not null,
  seen_event text
);
create index stripe_invoices_customer_idx on public.stripe_invoices (customer, period_start);
create index stripe_invoices_period_end_idx on public.stripe_invoices (period_end);

create table public.stripe_customers (
  id text primary key,
  is_deleted boolean not null,
  currency text,
  is_live boolean,
  asked_at timestamptz not null,
  seen_event text
);

create table public.stripe_credit_grants (
  id text primary key,
  customer text not null,
  category text not null,
  currency text not null,
  amount bigint not null, -- in the currency's smallest unit
  available bigint, -- what is left, at asked_at; NULL: Stripe did not say
  effective_at timestamptz,
  expires_at timestamptz,
  voided_at timestamptz,
  created_at timestamptz not null,
  is_live boolean not null,
  asked_at timestamptz not null,
  seen_event text
);
create index stripe_credit_grants_customer_idx on public.stripe_credit_grants (customer);

-- What Stripe has told about meter events, which it names by samples only, and about alerts.
create table public.stripe_notices (
  event_id text primary key,
  event_type text not null,
  occurred_at timestamptz not null,
  meter_id text,
  meter text,
  validated_from timestamptz, -- the range of time in which Stripe looked at the events
  validated_to timestamptz,
  errors bigint not null default 0,
  matched bigint not null default 0, -- of these, how many samples were events of ours
  detail jsonb not null,
  created_at timestamptz not null default now()
);
create index stripe_notices_occurred_at_idx on public.stripe_notices (occurred_at);

-- Hours whose delivered events are compared with Stripe's summaries, because a notice names fewer than have failed.
create table public.stripe_rechecks (
  id bigint generated always as identity primary key,
  notice_id text not null references public.stripe_notices (event_id) on delete restrict,
  meter text not null,
  customer text not null,
  hour timestamptz not null,
  event_ids bigint[] not null, -- those that were delivered when Stripe looked
  due_at timestamptz not null,
  checked_at timestamptz,
  delivered bigint, -- micro-USD of the hour: what we count as delivered, and what Stripe has
  counted bigint,
  verdict text check (verdict in ('agrees', 'rejected', 'unknown')),
  unique (notice_id, meter, customer, hour)
);
create index stripe_rechecks_due_idx on public.stripe_rechecks (due_at) where checked_at is null;

alter table public.stripe_subscriptions enable row level security;
alter table public.stripe_invoices enable row level security;
alter table public.stripe_customers enable row level security;
alter table public.stripe_credit_grants enable row level security;
alter table public.stripe_notices enable row level security;
alter table public.stripe_rechecks enable row level security;
