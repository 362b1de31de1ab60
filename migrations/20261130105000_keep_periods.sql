-- A closed period stays as it was closed: only reopening may touch it, and changes nothing but its state. And the price
-- books that rows name, so that a pack can be priced again when the gateway has a newer book.

create table public.price_books (
  version text primary key, -- as in openai_usage.price_version
  files jsonb not null check (jsonb_typeof(files) = 'object'), -- name → TOML
  seen_at timestamptz not null default now()
);

create function public.keep_closed_period() returns trigger language plpgsql set search_path = '' as $$
declare
  reopened public.periods;
begin
  if tg_op <> 'UPDATE' then
    raise exception 'a period is never deleted' using errcode = 'restrict_violation';
  end if;
  if old.state in ('closed', 'reopened') then
    reopened := old;
    reopened.state := 'reopened';
    if new is distinct from reopened then
      raise exception 'a closed period does not change' using errcode = 'restrict_violation',
        hint = 'Make a new version of it: gateway close reopen MONTH --why TEXT';
    end if;
  end if;
  return new;
end $$;

create trigger periods_stay before update or delete on public.periods
  for each row execute function public.keep_closed_period();
create trigger periods_are_never_emptied before truncate on public.periods
  for each statement execute function public.keep_closed_period();
alter table public.periods enable always trigger periods_stay;
alter table public.periods enable always trigger periods_are_never_emptied;

create trigger price_books_append_only before update or delete or truncate on public.price_books
  for each statement execute function public.refuse_change();
alter table public.price_books enable always trigger price_books_append_only;

alter table public.price_books enable row level security;
