-- Row security binds the owner too, and says so: whoever owns the tables passes by a policy of their own, not by an
-- exception that nobody sees. Functions are pinned to no search path of their caller's. May be run again.
do $$
declare
  each record;
begin
  for each in
    select c.relname as tab, pg_get_userbyid(c.relowner) as owner from pg_class c
    where c.relnamespace = 'public'::regnamespace and c.relkind = 'r' and pg_has_role(current_user, c.relowner, 'usage')
      and c.relname in ('users', 'api_keys', 'meetings', 'participants', 'openai_usage', 'rooms', 'usage_hourly',
        'stripe_windows', 'stripe_carry', 'stripe_meter_events', 'usage_quarantine', 'flush_counters', 'upstream_objects',
        'open_items', 'webhook_inbox', 'budgets', 'credit_entries', 'daily_backfills')
  loop
    if exists (select from pg_policies where schemaname = 'public' and policyname = each.tab || '_owner') then
      execute format('drop policy %I on public.%I', each.tab || '_owner', each.tab);
    end if;
    execute format('create policy %I on public.%I for all to %I using (true) with check (true)',
      each.tab || '_owner', each.tab, each.owner);
    execute format('alter table public.%I force row level security', each.tab);
  end loop;
end $$;
