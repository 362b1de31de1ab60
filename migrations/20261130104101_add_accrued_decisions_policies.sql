-- Nobody but the backend, which reads and appends; reports read. May be run again when a missing role was made later.
do $$
declare
  tab text;
  have_role text;
begin
  foreach tab in array array['accrued_decisions'] loop
    foreach have_role in array array['public', 'anon', 'authenticated', 'service_role'] loop
      continue when have_role <> 'public' and not exists (select from pg_roles where rolname = have_role);
      execute format('revoke all on public.%I from %s', tab, have_role);
    end loop;
    if exists (select from pg_roles where rolname = 'service_role') then
      execute format('grant select, insert on public.%I to service_role', tab);
      if exists (select from pg_policies where schemaname = 'public' and policyname = tab || '_service') then
        execute format('drop policy %I on public.%I', tab || '_service', tab);
      end if;
      execute format('create policy %I on public.%I for all to service_role using (true) with check (true)',
        tab || '_service', tab);
    end if;
    if exists (select from pg_roles where rolname = 'gateway_reports') then
      execute format('grant select on public.%I to gateway_reports', tab);
      if exists (select from pg_policies where schemaname = 'public' and policyname = tab || '_processes') then
        execute format('drop policy %I on public.%I', tab || '_processes', tab);
      end if;
      execute format('create policy %I on public.%I for all to gateway_reports using (true) with check (true)',
        tab || '_processes', tab);
    end if;
    if exists (select from pg_policies where schemaname = 'public' and policyname = tab || '_owner') then
      execute format('drop policy %I on public.%I', tab || '_owner', tab);
    end if;
    execute format('create policy %I on public.%I for all to %I using (true) with check (true)', tab || '_owner', tab,
      (select pg_get_userbyid(relowner) from pg_class where oid = ('public.' || tab)::regclass));
    execute format('alter table public.%I force row level security', tab);
  end loop;
  -- A cost centre that was to begin later gives way to one that begins before it; no amount depends on them.
  if exists (select from pg_roles where rolname = 'service_role') then
    grant delete on public.cost_centres to service_role;
  end if;
end $$;
