-- Nobody but the backend, which sets the mark once. May be run again when a missing role was made later.
do $$
declare
  have_role text;
begin
  foreach have_role in array array['public', 'anon', 'authenticated', 'service_role'] loop
    continue when have_role <> 'public' and not exists (select from pg_roles where rolname = have_role);
    execute format('revoke all on public.database_mark from %s', have_role);
  end loop;
  if exists (select from pg_roles where rolname = 'service_role') then
    grant select, insert on public.database_mark to service_role;
    if exists (select from pg_policies where schemaname = 'public' and policyname = 'database_mark_service') then
      drop policy database_mark_service on public.database_mark;
    end if;
    create policy database_mark_service on public.database_mark for all to service_role
      using (true) with check (true);
  end if;
  if exists (select from pg_policies where schemaname = 'public' and policyname = 'database_mark_owner') then
    drop policy database_mark_owner on public.database_mark;
  end if;
  execute format('create policy database_mark_owner on public.database_mark for all to %I using (true) with check (true)',
    (select pg_get_userbyid(relowner) from pg_class where oid = 'public.database_mark'::regclass));
end $$;
alter table public.database_mark force row level security;
