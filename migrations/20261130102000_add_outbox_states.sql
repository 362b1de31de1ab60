-- The outbox keeps its history: what is sent never changes, an event that is sent again is a new one, and every attempt and
-- every decision of a person stays.

alter table public.stripe_meter_events
  alter column user_id drop not null, -- an event of a customer of many users is nobody's alone
  add column customer_id uuid,
  add column original_window timestamptz, -- the window's start, where the amount is filed under a later time
  add column file_before timestamptz, -- after this its time is too late for its invoice; NULL: the calendar month's
  add column reason text not null default 'usage',
  add column replaces bigint, -- the event whose amount this one sends again
  add column settled_ref text, -- the invoice item, invoice or credit note that took its place
  add column leased_until timestamptz, -- set while an attempt runs; left behind by a worker that died in it
  drop constraint stripe_meter_events_state_known,
  drop constraint stripe_meter_events_delivered;
alter table public.stripe_meter_events
  add constraint stripe_meter_events_reason_known
    check (reason in ('usage', 'late', 'correction', 'carry', 'reissue')) not valid,
  add constraint stripe_meter_events_state_known
    check (state in ('pending', 'sent', 'duplicate', 'rejected', 'unknown', 'unreportable', 'settled', 'written_off',
      'cancelled', 'superseded')) not valid,
  add constraint stripe_meter_events_delivered
    check ((delivered_at is not null) = (state in ('sent', 'duplicate', 'cancelled'))) not valid,
  add constraint stripe_meter_events_settled check (state <> 'settled' or coalesce(settled_ref, '') <> '') not valid,
  add constraint stripe_meter_events_replaces_fkey
    foreign key (replaces) references public.stripe_meter_events (id) on delete restrict not valid,
  add constraint stripe_meter_events_has_payer check (num_nonnulls(user_id, customer_id) > 0) not valid;
-- An update of an event that stays on its page touches no index.
alter table public.stripe_meter_events set (fillfactor = 70);
-- Nobody looks for events by when they are due: only the oldest of each customer and meter is ever due.
drop index public.stripe_meter_events_due_idx;

create table public.stripe_attempts (
  id bigint generated always as identity primary key,
  event_id bigint not null references public.stripe_meter_events (id) on delete restrict,
  n integer not null, -- of stripe_meter_events.attempts
  at timestamptz not null,
  identifier text not null,
  idempotency_key text, -- NULL: one that was used once
  -- lost: a worker claimed the event and nothing was heard of it; refiled: not sent, filed under a later time
  outcome text not null check (outcome in ('delivered', 'duplicate', 'rejected', 'retry', 'in_doubt', 'stopped', 'lost',
    'not_sent', 'refiled')),
  http_status integer,
  stripe_request_id text,
  error text
);
create index stripe_attempts_event_id_idx on public.stripe_attempts (event_id, n);

create table public.stripe_decisions (
  id bigint generated always as identity primary key,
  event_id bigint not null references public.stripe_meter_events (id) on delete restrict,
  at timestamptz not null default clock_timestamp(),
  who text not null check (length(who) between 1 and 1000),
  action text not null check (action in ('reissue', 'delivered', 'settle', 'write-off', 'cancel')),
  why text not null check (why <> ''),
  reference text,
  evidence jsonb not null default '{}' -- what Stripe's summaries said, and whether somebody decided against them
);
create index stripe_decisions_event_id_idx on public.stripe_decisions (event_id);

create trigger stripe_attempts_append_only before update or delete or truncate on public.stripe_attempts
  for each statement execute function public.refuse_change();
alter table public.stripe_attempts enable always trigger stripe_attempts_append_only;
create trigger stripe_decisions_append_only before update or delete or truncate on public.stripe_decisions
  for each statement execute function public.refuse_change();
alter table public.stripe_decisions enable always trigger stripe_decisions_append_only;
create trigger stripe_meter_events_kept before delete or truncate on public.stripe_meter_events
  for each statement execute function public.refuse_change();

alter table public.stripe_attempts enable row level security;
alter table public.stripe_decisions enable row level security;
