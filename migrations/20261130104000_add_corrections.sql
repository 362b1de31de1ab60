-- Corrections by hand: who has corrected which ledger rows, why, and who has agreed. Amounts are nano-USD, with a sign.
create table public.corrections (
  id uuid primary key,
  made_at timestamptz not null default clock_timestamp(),
  made_by text not null check (length(made_by) between 1 and 1000),
  approved_by text check (length(approved_by) between 1 and 1000), -- NULL: one person was enough
  why text not null check (length(why) between 1 and 1000),
  ticket text check (length(ticket) between 1 and 255),
  kind text not null check (kind <> ''), -- adjust: as a person said; others as the command that makes them is called
  rows integer not null check (rows > 0),
  cost_nano bigint not null, -- sum of its adjustment rows
  billed_nano bigint not null
);
create index corrections_made_at_idx on public.corrections (made_at);

-- Which adjustment rows of openai_usage a correction has made, and which rows these correct. No foreign key to the ledger:
-- its rows are never deleted, they are inserted in the same transaction, and making one would lock the ledger.
create table public.correction_rows (
  adjustment_id uuid primary key,
  correction_id uuid not null references public.corrections (id) on delete restrict,
  adjusts uuid not null
);
create index correction_rows_correction_id_idx on public.correction_rows (correction_id);
create index correction_rows_adjusts_idx on public.correction_rows (adjusts);

-- What one person wants to correct and another has to agree to (billing.four_eyes); a correction that comes of it has
-- the same id. `targets`: per row what it shall be, and what it was when the person looked.
create table public.correction_proposals (
  id uuid primary key,
  made_at timestamptz not null default clock_timestamp(),
  made_by text not null check (length(made_by) between 1 and 1000),
  why text not null check (length(why) between 1 and 1000),
  ticket text check (length(ticket) between 1 and 255),
  kind text not null check (kind <> ''),
  targets jsonb not null check (jsonb_typeof(targets) = 'array'),
  rows integer not null check (rows > 0),
  cost_nano bigint not null,
  billed_nano bigint not null
);
create index correction_proposals_made_at_idx on public.correction_proposals (made_at);

create table public.correction_decisions (
  proposal_id uuid primary key references public.correction_proposals (id) on delete restrict,
  decided_at timestamptz not null default clock_timestamp(),
  decided_by text not null check (length(decided_by) between 1 and 1000),
  key_id text, -- Unkey's id of the key that has shown the right to approve
  approved boolean not null,
  why text check (length(why) between 1 and 1000)
);

create trigger corrections_append_only before update or delete or truncate on public.corrections
  for each statement execute function public.refuse_change();
alter table public.corrections enable always trigger corrections_append_only;
create trigger correction_rows_append_only before update or delete or truncate on public.correction_rows
  for each statement execute function public.refuse_change();
alter table public.correction_rows enable always trigger correction_rows_append_only;
create trigger correction_proposals_append_only before update or delete or truncate on public.correction_proposals
  for each statement execute function public.refuse_change();
alter table public.correction_proposals enable always trigger correction_proposals_append_only;
create trigger correction_decisions_append_only before update or delete or truncate on public.correction_decisions
  for each statement execute function public.refuse_change();
alter table public.correction_decisions enable always trigger correction_decisions_append_only;

alter table public.corrections enable row level security;
alter table public.correction_rows enable row level security;
alter table public.correction_proposals enable row level security;
alter table public.correction_decisions enable row level security;
