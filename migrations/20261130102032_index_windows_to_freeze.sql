-- Open windows by payer: each payer's oldest is found by jumping from one to the next.
create index billing_windows_to_freeze_idx on public.billing_windows (customer_id, meter, window_start)
  where open and customer_id is not null;
create index billing_windows_accrued_idx on public.billing_windows (user_id, meter, window_start)
  where open and customer_id is null;
