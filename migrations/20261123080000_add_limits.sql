-- Budgets by meeting and model, soft beside hard; prepaid credit.
alter table public.budgets
  add column meeting_id uuid references public.meetings (id) on delete restrict,
  add column model text check (model <> '' and length(model) <= 256),
  drop constraint budgets_key,
  add constraint budgets_key unique nulls not distinct (user_id, api_key_id, meeting_id, model, period, is_hard);
create index budgets_meeting_id_idx on public.budgets (meeting_id);
comment on table public.budgets is
  'A spending limit. It counts what all of user, key, meeting and model have in common; null stands for any.';

-- What a user has paid in advance. Whoever has an entry is prepaid from the first one on: what is left is the sum of the
-- entries less the sum of billed_usd since then. Append-only: a correction is an entry of its own.
create table public.credit_entries (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null references public.users (id) on delete restrict,
  amount_usd numeric(20, 9) not null check (amount_usd <> 0 and abs(amount_usd) <= 1000000),
  note text check (length(note) <= 500),
  -- Given by whoever adds the entry, so that doing it twice adds it once.
  reference text unique check (reference <> '' and length(reference) <= 255),
  created_at timestamptz not null default now()
);
create index credit_entries_user_id_idx on public.credit_entries (user_id, created_at);
create trigger credit_entries_append_only before update or delete or truncate on public.credit_entries
  for each statement execute function public.refuse_change();
alter table public.credit_entries enable row level security;
