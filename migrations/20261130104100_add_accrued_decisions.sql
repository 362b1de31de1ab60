-- What was decided about amounts that a user had accrued before anybody paid: billed to the customer who pays from now on,
-- settled elsewhere (with the invoice or credit note), or written off (with the reason). Append-only; nano-USD.
create table public.accrued_decisions (
  id uuid primary key default gen_random_uuid(),
  made_at timestamptz not null default clock_timestamp(),
  made_by text not null check (length(made_by) between 1 and 1000),
  user_id uuid not null references public.users (id) on delete restrict,
  customer_id uuid not null references public.customers (id) on delete restrict,
  action text not null check (action in ('bill', 'settle', 'write-off')),
  windows integer not null check (windows > 0),
  nano bigint not null,
  reference text check (length(reference) between 1 and 255),
  why text check (length(why) between 1 and 1000),
  constraint accrued_decisions_settled_where check (action <> 'settle' or reference is not null),
  constraint accrued_decisions_written_off_why check (action <> 'write-off' or why is not null)
);
create index accrued_decisions_user_id_idx on public.accrued_decisions (user_id, made_at);
create index accrued_decisions_customer_id_idx on public.accrued_decisions (customer_id);
create trigger accrued_decisions_append_only before update or delete or truncate on public.accrued_decisions
  for each statement execute function public.refuse_change();
alter table public.accrued_decisions enable always trigger accrued_decisions_append_only;
alter table public.accrued_decisions enable row level security;
