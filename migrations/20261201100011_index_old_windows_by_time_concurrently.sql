-- The same of the windows from before there were payers.
create index if not exists stripe_windows_window_start_idx on public.stripe_windows using brin (window_start)
  with (pages_per_range = 16, autosummarize = on);
