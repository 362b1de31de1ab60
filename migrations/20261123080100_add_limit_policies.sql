-- Who may see credit; as add_row_policies does for the other tables, and like it, it may be run again when a missing role
-- was made later.
do $$
declare
  have_role text;
begin
  foreach have_role in array array['public', 'anon', 'authenticated', 'service_role'] loop
    continue when have_role <> 'public' and not exists (select from pg_roles where rolname = have_role);
    execute format('revoke all on public.credit_entries from %s', have_role);
  end loop;
  if exists (select from pg_roles where rolname = 'service_role') then
    grant select, insert on public.credit_entries to service_role;
    if exists (select from pg_policies where schemaname = 'public' and policyname = 'credit_entries_service') then
      drop policy credit_entries_service on public.credit_entries;
    end if;
    create policy credit_entries_service on public.credit_entries for all to service_role
      using (true) with check (true);
  end if;
  if exists (select from pg_roles where rolname = 'authenticated') then
    grant select on public.credit_entries to authenticated;
    if exists (select from pg_policies where schemaname = 'public' and policyname = 'credit_entries_own') then
      drop policy credit_entries_own on public.credit_entries;
    end if;
    create policy credit_entries_own on public.credit_entries for select to authenticated
      using ((select auth.uid()) = user_id);
  end if;
end $$;
