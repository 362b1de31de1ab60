-- Nobody but the backend. May be run again when a missing role was made later.
do $$
declare
  have_role text;
  tab text;
  members text;
begin
  select string_agg(format('%I', rolname), ', ' order by rolname) into members from pg_roles
  where rolname in ('gateway_proxy', 'gateway_keeper', 'gateway_worker', 'gateway_reports');
  foreach tab in array array['stripe_subscriptions', 'stripe_invoices', 'stripe_customers', 'stripe_credit_grants',
    'stripe_notices', 'stripe_rechecks']
  loop
    foreach have_role in array array['public', 'anon', 'authenticated', 'service_role'] loop
      continue when have_role <> 'public' and not exists (select from pg_roles where rolname = have_role);
      execute format('revoke all on public.%I from %s', tab, have_role);
    end loop;
    if exists (select from pg_roles where rolname = 'service_role') then
      execute format('grant select, insert, update, delete on public.%I to service_role', tab);
      if exists (select from pg_policies where schemaname = 'public' and policyname = tab || '_service') then
        execute format('drop policy %I on public.%I', tab || '_service', tab);
      end if;
      execute format('create policy %I on public.%I for all to service_role using (true) with check (true)',
        tab || '_service', tab);
    end if;
    if exists (select from pg_policies where schemaname = 'public' and policyname = tab || '_owner') then
      execute format('drop policy %I on public.%I', tab || '_owner', tab);
    end if;
    execute format('create policy %I on public.%I for all to %I using (true) with check (true)', tab || '_owner', tab,
      (select pg_get_userbyid(relowner) from pg_class where oid = format('public.%I', tab)::regclass));
    execute format('alter table public.%I force row level security', tab);
    if exists (select from pg_roles where rolname = 'gateway_worker') then
      execute format('grant select, insert, update on public.%I to gateway_worker', tab);
    end if;
    if exists (select from pg_roles where rolname = 'gateway_reports') then
      execute format('grant select on public.%I to gateway_reports', tab);
    end if;
    if members is not null then
      if exists (select from pg_policies where schemaname = 'public' and policyname = tab || '_processes') then
        execute format('drop policy %I on public.%I', tab || '_processes', tab);
      end if;
      execute format('create policy %I on public.%I for all to %s using (true) with check (true)',
        tab || '_processes', tab, members);
    end if;
  end loop;
end $$;
