-- Meetings that Daily.co's webhooks fill: they may have no owner yet, and events wait for what they belong to.
alter table public.meetings alter column user_id drop not null;

alter table public.webhook_inbox
  add column next_attempt_at timestamptz not null default now(),
  add column waits_for text; -- `room <name>` or `session <id>`: taken up again as soon as that is known
drop index public.webhook_inbox_waiting_idx;
create index webhook_inbox_due_idx on public.webhook_inbox (source, next_attempt_at) where processed_at is null;
create index webhook_inbox_waits_for_idx on public.webhook_inbox (waits_for) where processed_at is null;

create index meetings_room_name_started_idx on public.meetings (room_name, started_at) where daily_meeting_id is not null;
create index meetings_unassigned_idx on public.meetings (started_at) where user_id is null;
create index participants_daily_participant_id_idx on public.participants (daily_participant_id);
