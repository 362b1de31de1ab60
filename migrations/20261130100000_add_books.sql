-- Months that close, payers with dates, and sums by the instant at which an amount counts for money (`booked_at`).
-- New tables only: nothing is written to them before switch_to_books. Amounts in `nano` columns are nano-USD.

-- How far the books are sealed, and where billed amounts accrue. One row.
create table public.books (
  only_row boolean primary key default true check (only_row),
  sealed_until timestamptz not null default '-infinity', -- what completes before it and comes now is booked at now
  -- The settings of the same names, which the worker sets when it starts: a trigger cannot read settings.
  meter text not null default 'openai_usage_micro_usd' check (length(meter) between 1 and 100),
  window_seconds integer not null default 3600 check (window_seconds > 0),
  -- How far the books of old rows have come: ids up to this one are done.
  booked_up_to uuid not null default '00000000-0000-0000-0000-000000000000'
);
insert into public.books (meter, window_seconds)
select coalesce(w.meter, 'openai_usage_micro_usd'), coalesce(w.window_seconds, 3600)
from (select true) as one
left join (select meter, window_seconds from public.stripe_windows order by updated_at desc limit 1) w on true;

-- A calendar month (UTC) in each of its states; reopening makes a new version, and the old one stays.
create table public.periods (
  month date not null, -- its first day
  version integer not null default 1 check (version > 0),
  state text not null default 'open' check (state in ('open', 'sealed', 'closing', 'closed', 'reopened')),
  sealed_at timestamptz,
  closed_at timestamptz,
  closed_by text,
  why text,
  totals jsonb,
  chain_head bytea,
  accepted jsonb,
  pack_digest text,
  primary key (month, version)
);

-- Who pays, and from when to when for whom. Many users may have one customer; a user has one at a time.
create table public.customers (
  id uuid primary key default gen_random_uuid(),
  name text check (length(name) <= 255),
  stripe_customer_id text unique check (stripe_customer_id <> ''),
  currency text not null default 'usd' check (currency ~ '^[a-z]{3}$'),
  -- postpaid: Stripe's invoice. prepaid: our credit first, then the invoice. grants: credit that lives at Stripe.
  mode text not null default 'postpaid' check (mode in ('postpaid', 'prepaid', 'grants')),
  tax_note text check (length(tax_note) <= 500),
  created_at timestamptz not null default now()
);

create table public.user_customers (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null references public.users (id) on delete restrict,
  customer_id uuid not null references public.customers (id) on delete restrict,
  valid_from timestamptz not null,
  valid_to timestamptz, -- NULL: until further notice
  accrued text check (accrued in ('bill', 'settle', 'write-off')), -- what was decided about earlier usage
  made_at timestamptz not null default now(),
  made_by text check (length(made_by) <= 1000),
  constraint user_customers_in_order check (valid_to > valid_from)
);
create index user_customers_user_id_idx on public.user_customers (user_id, valid_from);
create index user_customers_customer_id_idx on public.user_customers (customer_id);

-- Where a user's or a key's cost belongs in the customer's own books; joined when it is reported.
create table public.cost_centres (
  id uuid primary key default gen_random_uuid(),
  user_id uuid references public.users (id) on delete restrict,
  api_key_id uuid references public.api_keys (id) on delete restrict,
  code text not null check (length(code) between 1 and 100),
  valid_from timestamptz not null default '-infinity',
  valid_to timestamptz,
  constraint cost_centres_of_one check (num_nonnulls(user_id, api_key_id) = 1),
  constraint cost_centres_in_order check (valid_to > valid_from)
);
create index cost_centres_user_id_idx on public.cost_centres (user_id, valid_from);
create index cost_centres_api_key_id_idx on public.cost_centres (api_key_id, valid_from);

-- What a payer owes per meter and window of booked_at. Whoever has no customer yet accrues under their user id.
create table public.billing_windows (
  id bigint generated always as identity primary key,
  customer_id uuid references public.customers (id) on delete restrict,
  user_id uuid references public.users (id) on delete restrict,
  meter text not null, -- Stripe's event_name
  window_start timestamptz not null,
  window_seconds integer not null check (window_seconds > 0),
  billed_nano bigint not null default 0, -- sum of billed_usd so far, and moved_nano
  moved_nano bigint not null default 0, -- the part that came from stripe_windows
  credit_nano bigint not null default 0, -- the part that prepaid credit has paid
  frozen_nano bigint not null default 0, -- the part that outbox rows cover
  settled_nano bigint not null default 0, -- the part that was settled or written off by hand
  written_off_nano bigint not null default 0, -- in settled_nano: what was written off
  accrued_nano bigint not null default 0, -- in billed_nano: what came from users' own windows by decision; in these, below 0
  next_seq integer not null default 0,
  updated_at timestamptz not null default now(),
  -- Indexing this flag rather than the amounts keeps the amounts' updates in-page.
  open boolean not null generated always as (billed_nano - credit_nano - frozen_nano - settled_nano <> 0) stored,
  constraint billing_windows_one_payer check (num_nonnulls(customer_id, user_id) = 1),
  constraint billing_windows_key unique nulls not distinct (customer_id, user_id, meter, window_start)
) with (fillfactor = 70);
create index billing_windows_user_id_idx on public.billing_windows (user_id, meter, window_start) where user_id is not null;
create index billing_windows_open_idx on public.billing_windows (window_start) where open;

-- Less than a whole micro-USD that is left over when a window is frozen, for the next one of that customer.
create table public.billing_carry (
  customer_id uuid not null references public.customers (id) on delete restrict,
  meter text not null,
  nano bigint not null default 0,
  updated_at timestamptz not null default now(),
  primary key (customer_id, meter)
);

-- Prepaid credit: what was given, and what usage has used of it (used_nano: never more than was left at that time).
-- What is left is left_nano.
create table public.credit_balances (
  user_id uuid primary key references public.users (id) on delete restrict,
  since timestamptz not null, -- the first entry: what completed before it is not paid by credit
  granted_nano bigint not null default 0,
  used_before_nano bigint, -- by rows from before payers (books_version 0); NULL: not added up yet
  used_nano bigint not null default 0 check (used_nano >= 0),
  left_nano bigint not null generated always as (granted_nano - coalesce(used_before_nano, 0) - used_nano) stored,
  updated_at timestamptz not null default now()
) with (fillfactor = 70);
-- The same use by UTC day of booked_at.
create table public.credit_uses (
  user_id uuid not null references public.users (id) on delete restrict,
  day date not null,
  nano bigint not null default 0,
  primary key (user_id, day)
) with (fillfactor = 70);

-- Sums of openai_usage per UTC day of booked_at. Fed by the ledger's own triggers from the rows of each statement, whose
-- foreign keys hold; so these need none. `late_rows`: booked in another instant than they were completed.
create table public.usage_daily (
  day date not null,
  user_id uuid not null,
  api_key_id uuid,
  customer_id uuid,
  model text not null,
  endpoint text not null,
  service_tier text,
  evidence text not null,
  calls bigint not null default 0, -- rows that adjust nothing
  rows bigint not null default 0,
  late_rows bigint not null default 0,
  prompt_tokens bigint not null default 0,
  completion_tokens bigint not null default 0,
  total_tokens bigint not null default 0,
  cost_nano bigint not null default 0,
  billed_nano bigint not null default 0,
  billed_before_nano bigint not null default 0, -- the part of it by rows of books_version 0, which stripe_windows holds
  constraint usage_daily_key unique nulls not distinct
    (day, user_id, api_key_id, customer_id, model, endpoint, service_tier, evidence)
) with (fillfactor = 70);
create index usage_daily_user_id_idx on public.usage_daily (user_id, day);
create index usage_daily_api_key_id_idx on public.usage_daily (api_key_id, day);

create table public.usage_daily_meetings (
  day date not null,
  meeting_id uuid not null,
  user_id uuid not null,
  calls bigint not null default 0,
  cost_nano bigint not null default 0,
  billed_nano bigint not null default 0,
  primary key (day, meeting_id, user_id)
) with (fillfactor = 70);
create index usage_daily_meetings_user_id_idx on public.usage_daily_meetings (user_id, day);
create index usage_daily_meetings_meeting_id_idx on public.usage_daily_meetings (meeting_id, day);

-- The same by price line: tokens by class, tool fees. A worker feeds it, from the rows that units_due names.
create table public.usage_daily_units (
  day date not null,
  user_id uuid not null,
  api_key_id uuid,
  model text not null,
  service_tier text,
  evidence text not null,
  unit text not null,
  usd_per_unit numeric not null,
  quantity numeric not null default 0,
  usd numeric not null default 0,
  constraint usage_daily_units_key unique nulls not distinct
    (day, user_id, api_key_id, model, service_tier, evidence, unit, usd_per_unit)
) with (fillfactor = 70);
create index usage_daily_units_user_id_idx on public.usage_daily_units (user_id, day);

-- Rows whose price lines are not in usage_daily_units yet, a list per statement that inserted them. A worker adds many at
-- once: by each statement itself they would cost a busy writer more than all other sums together.
create table public.units_due (
  id bigint generated always as identity primary key,
  usage_ids uuid[] not null
);
alter table public.units_due alter column usage_ids set storage external; -- ids do not compress

-- Rows that were booked in another instant than they were completed: so the rows of a month by booked_at are found by their
-- completed_at and by this, without an index on the ledger for what is rare.
create table public.late_rows (
  usage_id uuid primary key,
  booked_at timestamptz not null
);
create index late_rows_booked_at_idx on public.late_rows (booked_at);

alter table public.books enable row level security;
alter table public.periods enable row level security;
alter table public.customers enable row level security;
alter table public.user_customers enable row level security;
alter table public.cost_centres enable row level security;
alter table public.billing_windows enable row level security;
alter table public.billing_carry enable row level security;
alter table public.credit_balances enable row level security;
alter table public.credit_uses enable row level security;
alter table public.usage_daily enable row level security;
alter table public.usage_daily_meetings enable row level security;
alter table public.usage_daily_units enable row level security;
alter table public.units_due enable row level security;
alter table public.late_rows enable row level security;
