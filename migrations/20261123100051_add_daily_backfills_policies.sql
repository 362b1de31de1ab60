-- Nobody but the backend. May be run again when a missing role was made later.
do $$
declare
  have_role text;
begin
  foreach have_role in array array['public', 'anon', 'authenticated', 'service_role'] loop
    continue when have_role <> 'public' and not exists (select from pg_roles where rolname = have_role);
    execute format('revoke all on public.daily_backfills from %s', have_role);
  end loop;
  if exists (select from pg_roles where rolname = 'service_role') then
    grant select, insert, update, delete on public.daily_backfills to service_role;
    if exists (select from pg_policies where schemaname = 'public' and policyname = 'daily_backfills_service') then
      drop policy daily_backfills_service on public.daily_backfills;
    end if;
    create policy daily_backfills_service on public.daily_backfills for all to service_role
      using (true) with check (true);
  end if;
end $$;
