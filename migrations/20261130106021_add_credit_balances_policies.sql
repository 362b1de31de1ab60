-- Workers keep the balances, proxies bound calls by them. May be run again when a missing role was made later.
do $$
declare
  have_role text;
  policy text;
  members text;
  each record;
begin
  foreach have_role in array array['public', 'anon', 'authenticated', 'service_role'] loop
    continue when have_role <> 'public' and not exists (select from pg_roles where rolname = have_role);
    execute format('revoke all on public.stripe_credit_balances from %s', have_role);
    execute format('revoke all on function public.uninvoiced_nano(uuid, timestamptz) from %s', have_role);
  end loop;
  select string_agg(format('%I', rolname), ', ' order by rolname) into members from pg_roles
  where rolname in ('gateway_proxy', 'gateway_keeper', 'gateway_worker', 'gateway_reports');
  for each in
    select * from (values
      ('service', (select quote_ident(rolname) from pg_roles where rolname = 'service_role')),
      ('processes', members),
      ('owner', (select quote_ident(pg_get_userbyid(relowner)) from pg_class
        where oid = 'public.stripe_credit_balances'::regclass))
    ) as p(name, grantee)
    where p.grantee is not null
  loop
    policy := 'stripe_credit_balances_' || each.name;
    if exists (select from pg_policies where schemaname = 'public' and policyname = policy) then
      execute format('drop policy %I on public.stripe_credit_balances', policy);
    end if;
    execute format('create policy %I on public.stripe_credit_balances for all to %s using (true) with check (true)',
      policy, each.grantee);
  end loop;
  alter table public.stripe_credit_balances force row level security;
  for each in
    select * from (values
      ('service_role', 'select, insert, update'),
      ('gateway_worker', 'select, insert, update'),
      ('gateway_reports', 'select'),
      ('gateway_proxy', 'select')
    ) as g(grantee, rights)
    where exists (select from pg_roles r where r.rolname = g.grantee)
  loop
    execute format('grant %s on public.stripe_credit_balances to %I', each.rights, each.grantee);
    execute format('grant execute on function public.uninvoiced_nano(uuid, timestamptz) to %I', each.grantee);
  end loop;
  if exists (select from pg_roles where rolname = 'gateway_proxy') then
    -- What uninvoiced_nano reads, and no more of billing.
    grant select (id, mode, stripe_customer_id) on public.customers to gateway_proxy;
    grant select (meter) on public.books to gateway_proxy;
    grant select (customer, meter, event_timestamp, state, value) on public.stripe_meter_events to gateway_proxy;
    grant select (customer_id, open, billed_nano, credit_nano, frozen_nano, settled_nano)
      on public.billing_windows to gateway_proxy;
    grant select (customer_id, nano, credit_due_nano) on public.billing_carry to gateway_proxy;
  end if;
end $$;
