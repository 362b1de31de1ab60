-- Only a writer inserts into the ledger: gateway_worker, or the owner. service_role, which anybody has who holds Supabase's
-- service key, no longer does: what it inserted by hand was in no report. A login that works with service_role's rights
-- becomes a member of gateway_worker, so that a worker under it goes on. May be run again when a missing role was made later.
do $$
declare
  each record;
begin
  if exists (select from pg_roles where rolname = 'authenticated') then
    grant select (booked_at, customer_id) on public.openai_usage to authenticated;
  end if;
  if not exists (select from pg_roles where rolname = 'service_role') then
    return;
  end if;
  if not exists (select from pg_roles where rolname = 'gateway_worker') then
    raise notice 'role gateway_worker is missing: service_role may still insert into openai_usage';
    return;
  end if;
  for each in
    select m.rolname from pg_auth_members a
    join pg_roles r on r.oid = a.roleid join pg_roles m on m.oid = a.member
    where r.rolname = 'service_role' and m.rolcanlogin and not m.rolsuper and m.rolname <> 'authenticator'
      and m.rolinherit and m.rolname <> current_user and not pg_has_role(m.oid, 'gateway_worker', 'member')
  loop
    begin
      execute format('grant gateway_worker to %I', each.rolname);
    exception
      when insufficient_privilege then
        raise notice '% could not be made a member of gateway_worker: service_role may still insert into openai_usage',
          each.rolname;
        return;
    end;
  end loop;
  revoke insert on public.openai_usage from service_role;
end $$;
