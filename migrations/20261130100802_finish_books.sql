-- Every row is booked (PostgreSQL knows it from the constraint and reads nothing), so the ledger is append-only again
-- without an exception.
alter table public.openai_usage alter column booked_at set not null;
alter table public.openai_usage drop constraint openai_usage_booked;

drop trigger openai_usage_book_old on public.openai_usage;
drop trigger openai_usage_booked_once on public.openai_usage;
drop function public.refuse_rebooking();
drop trigger openai_usage_append_only on public.openai_usage;
create trigger openai_usage_append_only before update or delete or truncate on public.openai_usage
  for each statement execute function public.refuse_change();
alter table public.openai_usage enable always trigger openai_usage_append_only;

update public.credit_balances set used_before_nano = 0 where used_before_nano is null;
alter table public.credit_balances alter column used_before_nano set default 0;
alter table public.credit_balances alter column used_before_nano set not null;
