-- What each kind of process may do. Rows are not restricted (a process serves all users), tables and columns are: so one
-- policy per table lets all of them pass, and the grants decide. May be run again when a missing role was made later.
do $$
declare
  each record;
  tab text;
  members text;
begin
  for each in
    select * from (values
      -- Whose key, which meeting, whose object, what was spent; rooms; and webhooks, which it stores and never reads.
      ('proxy', 'users', 'select (id, is_active, stripe_customer_id)'),
      ('proxy', 'api_keys', 'select (id, user_id, unkey_key_id, is_active, expires_at, enabled_at)'),
      ('proxy', 'budgets', 'select'),
      ('proxy', 'credit_entries', 'select (user_id, amount_usd, created_at)'),
      ('proxy', 'usage_hourly', 'select'),
      ('proxy', 'openai_usage',
        'select (id, user_id, api_key_id, meeting_id, adjusts, model, cost_usd, billed_usd, created_at)'),
      ('proxy', 'upstream_objects', 'select (object_id, user_id, deleted_at)'),
      ('proxy', 'meetings', 'select (id, user_id, room_name, daily_meeting_id, status, ended_at)'),
      ('proxy', 'rooms', 'select, insert, update'),
      ('proxy', 'webhook_inbox', 'select (source, event_id)'),
      ('proxy', 'webhook_inbox', 'insert (source, event_id, event_type, occurred_at, body)'),
      -- Which events have arrived.
      ('keeper', 'openai_usage', 'select (id)'),
      ('keeper', 'usage_quarantine', 'select (event_id)'),
      -- Writes the ledger and all sums, bills, applies webhooks, deletes what is due. Changes no account, key or budget.
      ('worker', 'openai_usage', 'select, insert'),
      ('worker', 'usage_hourly', 'select, insert, update'),
      ('worker', 'users', 'select (id, email, is_active, stripe_customer_id)'),
      ('worker', 'api_keys', 'select (id, user_id, usage_count, last_used_at)'),
      ('worker', 'api_keys', 'update (usage_count, last_used_at)'),
      ('worker', 'stripe_windows', 'select, insert, update'),
      ('worker', 'stripe_carry', 'select, insert, update'),
      ('worker', 'stripe_meter_events', 'select, insert, update'),
      ('worker', 'upstream_objects', 'select (object_id)'),
      ('worker', 'upstream_objects', 'insert'),
      ('worker', 'flush_counters', 'select, insert, update'),
      ('worker', 'usage_quarantine', 'select (id, event_id, digest, created_at, resolved_at)'),
      ('worker', 'usage_quarantine', 'insert'),
      ('worker', 'open_items', 'select, insert, update'),
      ('worker', 'budgets', 'select'),
      ('worker', 'credit_entries', 'select'),
      ('worker', 'meetings', 'select, insert, update'),
      ('worker', 'participants', 'select, insert, update, delete'),
      ('worker', 'rooms',
        'select (id, room_name, user_id, sealed, ended_at, expires_at, expired_at, version, created_at)'),
      ('worker', 'rooms', 'update (sealed, sealed_key_id, state, expired_at, version)'),
      ('worker', 'webhook_inbox', 'select, insert, update'),
      ('worker', 'daily_backfills', 'select, insert, update'),
      ('worker', 'database_mark', 'select, insert'), -- `gateway worker` looks before it starts
      -- Reads what is reported; no names of participants, no ids at Unkey.
      ('reports', 'openai_usage', 'select'),
      ('reports', 'usage_hourly', 'select'),
      ('reports', 'users', 'select (id, email, name, is_active, stripe_customer_id, created_at)'),
      ('reports', 'api_keys', 'select (id, user_id, name, description, is_active, expires_at, revoked_at, created_at)'),
      ('reports', 'meetings', 'select'),
      ('reports', 'participants', 'select (id, meeting_id, role, joined_at, left_at, duration_seconds, created_at)'),
      ('reports', 'budgets', 'select'),
      ('reports', 'credit_entries', 'select')
    ) as granted(process, tab, rights)
  loop
    continue when not exists (select from pg_roles where rolname = 'gateway_' || each.process);
    -- The columns stand with each right of a list: `select (a), update (a)`.
    execute format('grant %s on public.%I to %I', each.rights, each.tab, 'gateway_' || each.process);
    execute format('grant usage on schema public to %I', 'gateway_' || each.process);
  end loop;

  select string_agg(format('%I', rolname), ', ' order by rolname) into members from pg_roles
  where rolname in ('gateway_proxy', 'gateway_keeper', 'gateway_worker', 'gateway_reports');
  if members is null then
    return;
  end if;
  foreach tab in array array[
    'users', 'api_keys', 'meetings', 'participants', 'openai_usage', 'rooms', 'usage_hourly', 'stripe_windows',
    'stripe_carry', 'stripe_meter_events', 'usage_quarantine', 'flush_counters', 'upstream_objects', 'open_items',
    'webhook_inbox', 'budgets', 'credit_entries', 'daily_backfills', 'database_mark']
  loop
    if exists (select from pg_policies where schemaname = 'public' and policyname = tab || '_processes') then
      execute format('drop policy %I on public.%I', tab || '_processes', tab);
    end if;
    execute format('create policy %I on public.%I for all to %s using (true) with check (true)',
      tab || '_processes', tab, members);
  end loop;
end $$;

do $$
begin
  if exists (select from pg_roles where rolname = 'gateway_worker') then
    grant usage on schema supabase_migrations to gateway_worker;
    grant select on supabase_migrations.schema_migrations to gateway_worker;
  end if;
exception
  when insufficient_privilege then
    raise notice 'supabase_migrations is somebody else''s: gateway_worker may not look at it';
end $$;
