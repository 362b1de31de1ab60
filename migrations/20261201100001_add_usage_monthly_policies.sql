-- Nobody but the backend; proxies read the sums, to begin the counter of a budget. May be run again when a missing role was made later.
do $$
declare
  have_role text;
  each record;
  members text;
begin
  select string_agg(format('%I', rolname), ', ' order by rolname) into members from pg_roles
  where rolname in ('gateway_proxy', 'gateway_keeper', 'gateway_worker', 'gateway_reports');
  for each in
    select * from (values
      ('usage_monthly', 'select, insert, update', 'select, insert, update'),
      ('summed_months', 'select, insert', 'select, insert')
    ) as granted(tab, service, worker)
  loop
    foreach have_role in array array['public', 'anon', 'authenticated', 'service_role'] loop
      continue when have_role <> 'public' and not exists (select from pg_roles where rolname = have_role);
      execute format('revoke all on public.%I from %s', each.tab, have_role);
    end loop;
    if exists (select from pg_roles where rolname = 'service_role') then
      execute format('grant %s on public.%I to service_role', each.service, each.tab);
      if exists (select from pg_policies where schemaname = 'public' and policyname = each.tab || '_service') then
        execute format('drop policy %I on public.%I', each.tab || '_service', each.tab);
      end if;
      execute format('create policy %I on public.%I for all to service_role using (true) with check (true)',
        each.tab || '_service', each.tab);
    end if;
    if exists (select from pg_policies where schemaname = 'public' and policyname = each.tab || '_owner') then
      execute format('drop policy %I on public.%I', each.tab || '_owner', each.tab);
    end if;
    execute format('create policy %I on public.%I for all to %I using (true) with check (true)', each.tab || '_owner',
      each.tab, (select pg_get_userbyid(relowner) from pg_class where oid = format('public.%I', each.tab)::regclass));
    execute format('alter table public.%I force row level security', each.tab);
    if each.worker <> '' and exists (select from pg_roles where rolname = 'gateway_worker') then
      execute format('grant %s on public.%I to gateway_worker', each.worker, each.tab);
    end if;
    if exists (select from pg_roles where rolname = 'gateway_proxy') then
      execute format('grant select on public.%I to gateway_proxy', each.tab);
    end if;
    if members is not null then
      if exists (select from pg_policies where schemaname = 'public' and policyname = each.tab || '_processes') then
        execute format('drop policy %I on public.%I', each.tab || '_processes', each.tab);
      end if;
      execute format('create policy %I on public.%I for all to %s using (true) with check (true)',
        each.tab || '_processes', each.tab, members);
    end if;
  end loop;
end $$;
