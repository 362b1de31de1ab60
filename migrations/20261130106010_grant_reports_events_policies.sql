-- The report of accruals reads what waits on its way to Stripe. May be run again when a missing role was made later.
do $$
begin
  if exists (select from pg_roles where rolname = 'gateway_reports') then
    grant select on public.stripe_meter_events, public.stripe_windows to gateway_reports;
  end if;
end $$;
