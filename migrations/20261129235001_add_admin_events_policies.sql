-- Nobody but the backend, which reads and appends. May be run again when a missing role was made later.
do $$
declare
  have_role text;
begin
  foreach have_role in array array['public', 'anon', 'authenticated', 'service_role'] loop
    continue when have_role <> 'public' and not exists (select from pg_roles where rolname = have_role);
    execute format('revoke all on public.admin_events from %s', have_role);
  end loop;
  if exists (select from pg_roles where rolname = 'service_role') then
    grant select, insert on public.admin_events to service_role;
    if exists (select from pg_policies where schemaname = 'public' and policyname = 'admin_events_service') then
      drop policy admin_events_service on public.admin_events;
    end if;
    create policy admin_events_service on public.admin_events for all to service_role
      using (true) with check (true);
  end if;
  if exists (select from pg_policies where schemaname = 'public' and policyname = 'admin_events_owner') then
    drop policy admin_events_owner on public.admin_events;
  end if;
  execute format('create policy admin_events_owner on public.admin_events for all to %I using (true) with check (true)',
    (select pg_get_userbyid(relowner) from pg_class where oid = 'public.admin_events'::regclass));
end $$;
alter table public.admin_events force row level security;
