-- From this instant on every row of the ledger is booked, whoever writes it. All of it is instant: the new columns are
-- nullable or have a constant default, and no row is read. The lock on the ledger waits for the statements under way, which
-- have gone to stripe_windows, and every later one goes to billing_windows: so each amount is in one of them.
lock table public.openai_usage in access exclusive mode;

alter table public.openai_usage
  add column booked_at timestamptz, -- when the amount counts for money; NULL: not booked yet by the backfill
  add column plan_version text, -- what made billed_usd of cost_usd
  add column customer_id uuid, -- who pays; no foreign key: each row would be checked, and customers are never deleted
  add column books_version smallint not null default 0; -- 0: billed in stripe_windows, 1: in billing_windows
alter table public.openai_usage alter column books_version set default 1;

create trigger openai_usage_book_row before insert on public.openai_usage
  for each row when (new.booked_at is null) execute function public.book_row();
create trigger openai_usage_book_usage after insert on public.openai_usage
  referencing new table as added for each statement execute function public.book_usage();

-- The backfill may book a row that is not booked; nothing else changes, still.
create function public.refuse_rebooking() returns trigger language plpgsql set search_path = '' as $$
begin
  if old.booked_at is not null then
    raise exception '% is append-only: % refused', tg_table_name, lower(tg_op)
      using errcode = 'restrict_violation', hint = 'Correct a row with `gateway adjust`.';
  end if;
  return new;
end $$;
drop trigger openai_usage_append_only on public.openai_usage;
create trigger openai_usage_append_only before delete or truncate or update of
  id, user_id, meeting_id, api_key_id, adjusts, endpoint, model, service_tier, evidence, prompt_tokens, completion_tokens,
  total_tokens, cost_usd, billed_usd, price_version, cost_lines, usage, usage_raw, response_id, request_id, metadata,
  started_at, completed_at, inserted_at, books_version on public.openai_usage
  for each statement execute function public.refuse_change();
alter table public.openai_usage enable always trigger openai_usage_append_only;
create trigger openai_usage_booked_once before update on public.openai_usage
  for each row execute function public.refuse_rebooking();
alter table public.openai_usage enable always trigger openai_usage_booked_once;
create trigger openai_usage_book_old after update on public.openai_usage
  referencing new table as added for each statement execute function public.book_usage();

-- What the version before adds to its windows is in billing_windows already.
alter table public.stripe_windows add column moved_nano bigint not null default 0; -- moved to billing_windows, in frozen_nano
create trigger stripe_windows_are_history before insert on public.stripe_windows
  for each row execute function public.skip_row();
