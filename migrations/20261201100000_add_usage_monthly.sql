-- Sums of cost by calendar month (UTC) of `completed_at`, by user, key and model: a budget without an end adds up months
-- instead of all hours that there have ever been. A worker adds a month up once it is sealed, from what was booked in it when
-- it was completed, which never changes any more; rows that come later are added by a trigger, whatever month they are of.
create table public.usage_monthly (
  month date not null, -- its first day
  user_id uuid not null,
  api_key_id uuid,
  model text not null,
  cost_nano bigint not null default 0,
  constraint usage_monthly_key unique nulls not distinct (user_id, month, api_key_id, model)
) with (fillfactor = 70);
-- Months that are added up; of any other one usage_monthly has late rows only. From the first one on, without a gap.
create table public.summed_months (
  month date primary key,
  since timestamptz not null,
  until timestamptz not null check (until > since)
);
alter table public.usage_monthly enable row level security;
alter table public.summed_months enable row level security;

create function public.add_late_rows() returns trigger language plpgsql set search_path = '' as $$
begin
  if not exists (select from added) then
    return null;
  end if;
  insert into public.usage_monthly as m (month, user_id, api_key_id, model, cost_nano)
  select date_trunc('month', u.completed_at at time zone 'UTC')::date, u.user_id, u.api_key_id, u.model,
    coalesce(sum(u.cost_usd) * 1000000000, 0)::bigint
  from added join public.openai_usage u on u.id = added.usage_id
  group by 1, 2, 3, 4
  order by 2, 1, 3, 4
  on conflict on constraint usage_monthly_key do update set cost_nano = m.cost_nano + excluded.cost_nano;
  return null;
end $$;
create trigger late_rows_add_to_months after insert on public.late_rows
  referencing new table as added for each statement execute function public.add_late_rows();
-- The trigger's lock keeps all writers of the ledger out until this is committed, because each of their statements inserts into
-- late_rows, mostly nothing. Late rows are few, so that is short.
insert into public.usage_monthly (month, user_id, api_key_id, model, cost_nano)
select date_trunc('month', u.completed_at at time zone 'UTC')::date, u.user_id, u.api_key_id, u.model,
  coalesce(sum(u.cost_usd) * 1000000000, 0)::bigint
from public.late_rows l join public.openai_usage u on u.id = l.usage_id
group by 1, 2, 3, 4;
