-- How many events are in which state, and how much money, so that nobody has to count the outbox. Each connection counts in
-- rows of its own (or nearly), so that workers do not queue for one: the sum over all slots is the figure.
create table public.outbox_totals (
  slot smallint not null,
  state text not null,
  meter text not null,
  account text, -- the Stripe account, as in stripe_meter_events
  events bigint not null default 0,
  value bigint not null default 0, -- whole micro-USD
  constraint outbox_totals_key unique nulls not distinct (slot, state, meter, account)
) with (fillfactor = 50);
alter table public.outbox_totals enable row level security;

create function public.count_meter_events() returns trigger language plpgsql set search_path = '' as $$
begin
  if tg_op = 'INSERT' then
    insert into public.outbox_totals as t (slot, state, meter, account, events, value)
    select pg_backend_pid() % 64, state, meter, account, count(*), sum(value) from added
    group by state, meter, account order by state, meter, account
    on conflict (slot, state, meter, account) do update set
      events = t.events + excluded.events, value = t.value + excluded.value;
  else
    insert into public.outbox_totals as t (slot, state, meter, account, events, value)
    select pg_backend_pid() % 64, state, meter, account, sum(n), sum(n * value) from (
      select state, meter, account, -1 as n, value from gone
      union all
      select state, meter, account, 1, value from added
    ) changed
    group by state, meter, account having sum(n) <> 0 or sum(n * value) <> 0 order by state, meter, account
    on conflict (slot, state, meter, account) do update set
      events = t.events + excluded.events, value = t.value + excluded.value;
  end if;
  return null;
end $$;
create trigger stripe_meter_events_count_added after insert on public.stripe_meter_events
  referencing new table as added for each statement execute function public.count_meter_events();
create trigger stripe_meter_events_count_changed after update on public.stripe_meter_events
  referencing old table as gone new table as added for each statement execute function public.count_meter_events();
-- Both triggers' locks keep writers out until this is committed.
insert into public.outbox_totals (slot, state, meter, account, events, value)
select 0, state, meter, account, count(*), sum(value) from public.stripe_meter_events group by state, meter, account;
