-- A signed-in user sees what they are billed, never what it cost us (that would show the margin), and nothing that the
-- operator notes about them. So these tables are granted by column, and a column of a later migration stays hidden until
-- it is granted. May be run again when a missing role was made later.
do $$
begin
  if exists (select from pg_roles where rolname = 'authenticated') then
    revoke all on public.users, public.openai_usage, public.usage_hourly from authenticated;
    grant select (id, email, name, stripe_customer_id, is_active, last_login_at, created_at, updated_at)
      on public.users to authenticated;
    grant select (id, user_id, meeting_id, api_key_id, adjusts, endpoint, model, service_tier, evidence, prompt_tokens,
      completion_tokens, total_tokens, billed_usd, price_version, usage, usage_raw, response_id, request_id, started_at,
      completed_at, created_at, inserted_at) on public.openai_usage to authenticated;
    grant select (hour, user_id, api_key_id, meeting_id, model, endpoint, service_tier, evidence, calls, rows,
      prompt_tokens, completion_tokens, total_tokens, billed_usd) on public.usage_hourly to authenticated;
  end if;
end $$;
