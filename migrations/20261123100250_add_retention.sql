-- Personal data go after a time: names and addresses of participants, bodies of webhooks, what is sealed in rooms. The
-- ledger holds none and is never touched.
alter table public.participants add column anonymised_at timestamptz;
create index participants_named_idx on public.participants (meeting_id) where anonymised_at is null;
create index webhook_inbox_full_idx on public.webhook_inbox (processed_at) where length(body) > 0;
create index rooms_sealed_ended_idx on public.rooms (ended_at) where sealed is not null;

-- Once somebody is nobody they stay it, whoever writes later: a late webhook, a backfill, an operator.
create function public.keep_anonymous() returns trigger language plpgsql set search_path = '' as $$
begin
  if tg_op = 'UPDATE' and old.anonymised_at is not null then
    new.anonymised_at := old.anonymised_at;
  end if;
  if new.anonymised_at is not null then
    new.name := null;
    new.email := null;
    new.metadata := case when new.metadata ? 'daily'
      then jsonb_build_object('daily', (new.metadata -> 'daily') - 'user_id') else '{}' end;
  end if;
  return new;
end $$;
create trigger participants_keep_anonymous before insert or update on public.participants
  for each row execute function public.keep_anonymous();
