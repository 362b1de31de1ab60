-- Plans are made by commands and read by every process that values calls. May be run again when a missing role was made
-- later.
do $$
declare
  each record;
  have_role text;
  tab text;
  processes text;
begin
  for each in select policyname, tablename from pg_policies where schemaname = 'public'
    and tablename in ('plans', 'plan_changes')
  loop
    execute format('drop policy %I on public.%I', each.policyname, each.tablename);
  end loop;
  select string_agg(format('%I', rolname), ', ' order by rolname) into processes from pg_roles
  where rolname in ('gateway_proxy', 'gateway_keeper', 'gateway_worker', 'gateway_reports');
  foreach tab in array array['plans', 'plan_changes'] loop
    foreach have_role in array array['public', 'anon', 'authenticated', 'service_role'] loop
      continue when have_role <> 'public' and not exists (select from pg_roles where rolname = have_role);
      execute format('revoke all on public.%I from %s', tab, have_role);
    end loop;
    if exists (select from pg_roles where rolname = 'service_role') then
      execute format('create policy %I on public.%I for all to service_role using (true) with check (true)',
        tab || '_service', tab);
    end if;
    execute format('create policy %I on public.%I for all to %I using (true) with check (true)', tab || '_owner', tab,
      (select pg_get_userbyid(relowner) from pg_class where oid = format('public.%I', tab)::regclass));
    if processes is not null then
      execute format('grant select on public.%I to %s', tab, processes);
      execute format('create policy %I on public.%I for all to %s using (true) with check (true)', tab || '_processes',
        tab, processes);
    end if;
  end loop;
  if exists (select from pg_roles where rolname = 'service_role') then
    grant select, insert, update (valid_to, ended_at, ended_by) on public.plans to service_role;
    grant select, update on public.plan_changes to service_role;
  end if;
  -- Whose plan a user's calls are billed by, where it is that of a customer.
  if processes is not null then
    execute format('grant select (user_id, customer_id, valid_from, valid_to, made_at) on public.user_customers to %s',
      processes);
  end if;
end $$;
alter table public.plan_changes force row level security;
alter table public.plans force row level security;
