-- Nobody but the backend. May be run again when a missing role was made later.
do $$
declare
  have_role text;
  policy text;
  members text;
  each record;
begin
  foreach have_role in array array['public', 'anon', 'authenticated', 'service_role'] loop
    continue when have_role <> 'public' and not exists (select from pg_roles where rolname = have_role);
    execute format('revoke all on public.hosts from %s', have_role);
  end loop;
  select string_agg(format('%I', rolname), ', ' order by rolname) into members from pg_roles
  where rolname in ('gateway_proxy', 'gateway_keeper', 'gateway_worker', 'gateway_reports');
  for each in
    select * from (values
      ('service', (select quote_ident(rolname) from pg_roles where rolname = 'service_role')),
      ('processes', members),
      ('owner', (select quote_ident(pg_get_userbyid(relowner)) from pg_class where oid = 'public.hosts'::regclass))
    ) as p(name, grantee)
    where p.grantee is not null
  loop
    policy := 'hosts_' || each.name;
    if exists (select from pg_policies where schemaname = 'public' and policyname = policy) then
      execute format('drop policy %I on public.hosts', policy);
    end if;
    execute format('create policy %I on public.hosts for all to %s using (true) with check (true)', policy, each.grantee);
  end loop;
  alter table public.hosts force row level security;
  for each in
    select * from (values
      ('service_role', 'select, insert, update, delete'),
      ('gateway_keeper', 'select, insert, update'),
      ('gateway_worker', 'select, insert, update'),
      ('gateway_reports', 'select')
    ) as g(grantee, rights)
    where exists (select from pg_roles r where r.rolname = g.grantee)
  loop
    execute format('grant %s on public.hosts to %I', each.rights, each.grantee);
  end loop;
end $$;
