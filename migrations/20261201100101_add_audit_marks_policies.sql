-- Nobody but the backend and its owner: those who audit. May be run again when a missing role was made later.
do $$
declare
  have_role text;
begin
  foreach have_role in array array['public', 'anon', 'authenticated', 'service_role'] loop
    continue when have_role <> 'public' and not exists (select from pg_roles where rolname = have_role);
    execute format('revoke all on public.audit_marks from %s', have_role);
  end loop;
  if exists (select from pg_policies where schemaname = 'public' and policyname = 'audit_marks_service') then
    drop policy audit_marks_service on public.audit_marks;
  end if;
  if exists (select from pg_roles where rolname = 'service_role') then
    grant select, insert on public.audit_marks to service_role;
    create policy audit_marks_service on public.audit_marks for all to service_role using (true) with check (true);
  end if;
  if exists (select from pg_policies where schemaname = 'public' and policyname = 'audit_marks_processes') then
    drop policy audit_marks_processes on public.audit_marks;
  end if;
  if exists (select from pg_roles where rolname = 'gateway_reports') then
    grant select on public.audit_marks to gateway_reports;
    create policy audit_marks_processes on public.audit_marks for all to gateway_reports using (true) with check (true);
  end if;
  if exists (select from pg_policies where schemaname = 'public' and policyname = 'audit_marks_owner') then
    drop policy audit_marks_owner on public.audit_marks;
  end if;
  execute format('create policy audit_marks_owner on public.audit_marks for all to %I using (true) with check (true)',
    (select pg_get_userbyid(relowner) from pg_class where oid = 'public.audit_marks'::regclass));
end $$;
alter table public.audit_marks force row level security;
