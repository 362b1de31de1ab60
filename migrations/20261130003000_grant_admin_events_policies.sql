-- A proxy records which key has read what is sealed in a room: it appends events of keys, never of an operator, and reads no
-- event but the id of what it has written. May be run again when a missing role was made later.
do $$
begin
  if not exists (select from pg_roles where rolname = 'gateway_proxy') then
    return;
  end if;
  grant select (id), insert (actor_kind, actor, verb, subject, subject_id, phase, intent_id, before, after)
    on public.admin_events to gateway_proxy;
  if exists (select from pg_policies where schemaname = 'public' and policyname = 'admin_events_processes') then
    drop policy admin_events_processes on public.admin_events;
  end if;
  create policy admin_events_processes on public.admin_events for all to gateway_proxy
    using (actor_kind = 'key') with check (actor_kind = 'key');
end $$;
