-- How far a walk over Daily.co's past meetings has come, so that it can go on where it was broken off; and whose turn
-- the regular look is.
create table public.daily_backfills (
  name text primary key, -- the range and room that were asked for, or `reconcile`
  cursor text,
  until_at timestamptz, -- where the range ended when the walk began
  meetings bigint not null default 0,
  finished_at timestamptz,
  leased_until timestamptz,
  updated_at timestamptz not null default now()
);
create trigger daily_backfills_updated_at before update on public.daily_backfills
  for each row execute function public.set_updated_at();
alter table public.daily_backfills enable row level security;
