-- Who may see and do what with books, payers and the sums by day; as the other files of policies, and like them it may be
-- run again, in order, when a missing role was made later.
do $$
declare
  every constant text[] := array['books', 'periods', 'customers', 'user_customers', 'cost_centres', 'billing_windows',
    'billing_carry', 'credit_balances', 'credit_uses', 'usage_daily', 'usage_daily_meetings', 'usage_daily_units',
    'units_due', 'late_rows'];
  seen constant text[] := array['credit_balances', 'usage_daily', 'usage_daily_meetings', 'usage_daily_units'];
  each record;
  tab text;
  have_role text;
  members text;
begin
  foreach have_role in array array['public', 'anon', 'authenticated', 'service_role'] loop
    continue when have_role <> 'public' and not exists (select from pg_roles where rolname = have_role);
    foreach tab in array every loop
      execute format('revoke all on public.%I from %s', tab, have_role);
    end loop;
    execute format('revoke all on function public.books_sealed_until(), public.seal_books(timestamptz), '
      'public.payer_of(uuid, timestamptz), public.payer_of_adjustment(uuid, uuid, timestamptz), public.book_row(), '
      'public.book_usage(), public.follow_stripe_customer(), public.refuse_second_payer(), '
      'public.show_stripe_customer(), public.add_to_balance(), public.skip_row() from %s', have_role);
  end loop;

  select string_agg(format('%I', rolname), ', ' order by rolname) into members from pg_roles
  where rolname in ('gateway_proxy', 'gateway_keeper', 'gateway_worker', 'gateway_reports');
  for each in
    select t.tab, p.policy, p.grantee from unnest(every) as t(tab), (values
      ('service', (select format('%I', rolname) from pg_roles where rolname = 'service_role')),
      ('processes', members),
      ('own', (select format('%I', rolname) from pg_roles where rolname = 'authenticated')),
      ('owner', '')
    ) as p(policy, grantee)
    where p.grantee is not null and (p.policy <> 'own' or t.tab = any(seen))
  loop
    if exists (
      select from pg_policies where schemaname = 'public' and policyname = each.tab || '_' || each.policy
    ) then
      execute format('drop policy %I on public.%I', each.tab || '_' || each.policy, each.tab);
    end if;
    if each.policy = 'own' then
      execute format('create policy %I on public.%I for select to %s using ((select auth.uid()) = user_id)',
        each.tab || '_own', each.tab, each.grantee);
    else
      execute format('create policy %I on public.%I for all to %s using (true) with check (true)',
        each.tab || '_' || each.policy, each.tab, coalesce(nullif(each.grantee, ''),
          (select quote_ident(pg_get_userbyid(relowner)) from pg_class where oid = ('public.' || each.tab)::regclass)));
    end if;
  end loop;
  foreach tab in array every loop
    execute format('alter table public.%I force row level security', tab);
  end loop;

  if exists (select from pg_roles where rolname = 'service_role') then
    foreach tab in array every loop
      execute format('grant select, insert, update on public.%I to service_role', tab);
    end loop;
    grant delete on public.units_due to service_role;
    grant execute on function public.books_sealed_until(), public.seal_books(timestamptz),
      public.payer_of(uuid, timestamptz), public.payer_of_adjustment(uuid, uuid, timestamptz) to service_role;
  end if;

  -- What a user is billed, never what it cost us, and not which mark-up lies between the two.
  if exists (select from pg_roles where rolname = 'authenticated') then
    grant select (user_id, since, granted_nano, used_before_nano, used_nano, left_nano, updated_at)
      on public.credit_balances to authenticated;
    grant select (day, user_id, api_key_id, customer_id, model, endpoint, service_tier, evidence, calls, rows, late_rows,
      prompt_tokens, completion_tokens, total_tokens, billed_nano, billed_before_nano) on public.usage_daily to authenticated;
    grant select (day, meeting_id, user_id, calls, billed_nano) on public.usage_daily_meetings to authenticated;
    grant select (day, user_id, api_key_id, model, service_tier, evidence, unit, quantity)
      on public.usage_daily_units to authenticated;
  end if;

  for each in
    select * from (values
      ('proxy', 'credit_balances', 'select'),
      ('proxy', 'usage_daily', 'select'),
      -- The triggers of the ledger work with the rights of the writer.
      ('worker', 'books', 'select'),
      ('worker', 'books', 'update (sealed_until, meter, window_seconds)'),
      ('worker', 'periods', 'select, insert, update'),
      ('worker', 'customers', 'select'),
      ('worker', 'user_customers', 'select'),
      ('worker', 'billing_windows', 'select, insert, update'),
      ('worker', 'billing_carry', 'select, insert, update'),
      ('worker', 'credit_balances', 'select, update'),
      ('worker', 'credit_uses', 'select, insert, update'),
      ('worker', 'usage_daily', 'select, insert, update'),
      ('worker', 'usage_daily_meetings', 'select, insert, update'),
      ('worker', 'usage_daily_units', 'select, insert, update'),
      ('worker', 'units_due', 'select, insert, update, delete'),
      ('worker', 'late_rows', 'select, insert'),
      ('reports', 'units_due', 'select'),
      ('reports', 'late_rows', 'select'),
      ('reports', 'books', 'select'),
      ('reports', 'periods', 'select'),
      ('reports', 'customers', 'select'),
      ('reports', 'user_customers', 'select'),
      ('reports', 'cost_centres', 'select'),
      ('reports', 'billing_windows', 'select'),
      ('reports', 'billing_carry', 'select'),
      ('reports', 'credit_balances', 'select'),
      ('reports', 'credit_uses', 'select'),
      ('reports', 'usage_daily', 'select'),
      ('reports', 'usage_daily_meetings', 'select'),
      ('reports', 'usage_daily_units', 'select')
    ) as granted(process, tab, rights)
  loop
    continue when not exists (select from pg_roles where rolname = 'gateway_' || each.process);
    execute format('grant %s on public.%I to %I', each.rights, each.tab, 'gateway_' || each.process);
  end loop;
  if exists (select from pg_roles where rolname = 'gateway_worker') then
    grant execute on function public.books_sealed_until(), public.seal_books(timestamptz),
      public.payer_of(uuid, timestamptz), public.payer_of_adjustment(uuid, uuid, timestamptz) to gateway_worker;
  end if;
end $$;
