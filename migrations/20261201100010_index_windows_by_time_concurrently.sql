-- The windows of a range of time, for the audit of it. Windows are made in the order of time, so a summary of each few pages
-- is enough, and costs whoever makes them next to nothing.
create index if not exists billing_windows_window_start_idx on public.billing_windows using brin (window_start)
  with (pages_per_range = 16, autosummarize = on);
