-- Who may see what. anon: nothing. A signed-in user: their own rows, read only, and of api_keys and rooms
-- only the harmless columns. service_role: everything but changing the ledger.
-- Supabase grants ALL on new tables to anon and authenticated, and TRUNCATE is not bound by row security:
-- hence the revokes. May be run again when a missing role was made later: it replaces what it made.
do $$
declare
  every constant text[] := array[
    'users', 'api_keys', 'meetings', 'participants', 'openai_usage', 'rooms', 'usage_hourly', 'stripe_windows',
    'stripe_carry', 'stripe_meter_events', 'usage_quarantine', 'flush_counters', 'upstream_objects', 'open_items',
    'webhook_inbox', 'budgets'];
  tab text;
  own record;
  have_role text;
begin
  foreach have_role in array array['public', 'anon', 'authenticated', 'service_role'] loop
    continue when have_role <> 'public' and not exists (select from pg_roles where rolname = have_role);
    foreach tab in array every loop
      execute format('revoke all on public.%I from %s', tab, have_role);
    end loop;
    -- Two functions of triggers; nobody calls them by name.
    execute format('revoke all on function public.set_updated_at(), public.refuse_change() from %s', have_role);
  end loop;

  if exists (select from pg_roles where rolname = 'service_role') then
    grant usage on schema public to service_role;
    foreach tab in array every loop
      execute format('grant select, insert, update, delete on public.%I to service_role', tab);
      if exists (select from pg_policies where schemaname = 'public' and policyname = tab || '_service') then
        execute format('drop policy %I on public.%I', tab || '_service', tab);
      end if;
      execute format('create policy %I on public.%I for all to service_role using (true) with check (true)',
        tab || '_service', tab);
    end loop;
    revoke update, delete on public.openai_usage from service_role;
  end if;

  if exists (select from pg_roles where rolname = 'authenticated') then
    grant usage on schema public to authenticated;
    for own in
      select * from (values
        ('users', '', '(select auth.uid()) = id'),
        ('api_keys',
          '(id, user_id, name, description, last_used_at, usage_count, is_active, expires_at, revoked_at, created_at)',
          '(select auth.uid()) = user_id'),
        ('meetings', '', '(select auth.uid()) = user_id'),
        ('participants', '',
          'meeting_id in (select m.id from public.meetings m where m.user_id = (select auth.uid()))'),
        ('openai_usage', '', '(select auth.uid()) = user_id'),
        ('rooms', '(id, room_name, user_id, meeting_id, state, started_at, ended_at, created_at, updated_at)',
          '(select auth.uid()) = user_id'),
        ('usage_hourly', '', '(select auth.uid()) = user_id'),
        ('budgets', '', '(select auth.uid()) = user_id')
      ) as owned(tab, columns, rule)
    loop
      execute format('grant select %s on public.%I to authenticated', own.columns, own.tab);
      if exists (select from pg_policies where schemaname = 'public' and policyname = own.tab || '_own') then
        execute format('drop policy %I on public.%I', own.tab || '_own', own.tab);
      end if;
      execute format('create policy %I on public.%I for select to authenticated using (%s)',
        own.tab || '_own', own.tab, own.rule);
    end loop;
  end if;
end $$;
