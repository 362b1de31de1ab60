-- Visits that never became a meeting: the events about one connection are found by it, and lapse some day. A walk over
-- Daily.co's meetings notes which range it has looked at, so that it is known when there was none.
alter table public.webhook_inbox
  add column about text, -- of an event that waits: the connection (Daily.co's session_id) that it tells about
  add column lapsed_at timestamptz; -- dealt with because no meeting was told
create index webhook_inbox_about_idx on public.webhook_inbox (about) where waits_for is not null;
create index webhook_inbox_lapsed_idx on public.webhook_inbox (lapsed_at) where lapsed_at is not null;
create index webhook_inbox_lapsed_waits_for_idx on public.webhook_inbox (waits_for) where lapsed_at is not null;

alter table public.daily_backfills
  add column since_at timestamptz, -- where the range begins
  add column room text; -- null: all rooms
