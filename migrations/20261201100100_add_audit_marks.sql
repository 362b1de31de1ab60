-- What an audit of everything that found the sums clean has left (docs/audit.md): the sums of what was booked before
-- `until`, which never change any more. An audit of a range goes on from the newest one.
create table public.audit_marks (
  id bigint generated always as identity primary key,
  until timestamptz not null, -- the books were sealed up to here
  as_of timestamptz not null, -- when all was compared
  made_by text not null check (length(made_by) between 1 and 2000),
  rows bigint not null, -- of usage_daily
  key_calls bigint not null, -- calls with a key
  owed_nano bigint not null, -- what customers' windows owe by their own rows, and what was frozen before there were customers
  credit_nano bigint not null, -- what prepaid credit has paid
  previous bytea, -- SHA-256 of the mark before; two never follow the same one
  mac bytea not null, -- under GATEWAY_SECRETS
  constraint audit_marks_chain unique nulls not distinct (previous)
);
create trigger audit_marks_append_only before update or delete or truncate on public.audit_marks
  for each statement execute function public.refuse_change();
alter table public.audit_marks enable always trigger audit_marks_append_only;
alter table public.audit_marks enable row level security;
