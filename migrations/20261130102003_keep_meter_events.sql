-- What is sent never changes, and what a person has decided is final. An event that is sent again is another event.
create function public.keep_meter_event() returns trigger language plpgsql set search_path = '' as $$
begin
  if old.state in ('rejected', 'unknown') and new.state = 'pending' and new.identifier <> old.identifier
    and (new.value, new.meter, new.window_start, new.window_seconds, new.event_timestamp)
      = (old.value, old.meter, old.window_start, old.window_seconds, old.event_timestamp)
  then
    -- A gateway of before the history was kept sends an event again in place: let it make the new one instead.
    insert into public.stripe_meter_events (user_id, customer_id, customer, meter, window_start, window_seconds, seq,
      value, nano, carry_nano_after, event_timestamp, identifier, attempts, next_attempt_at, last_error, account,
      original_window, reason, replaces)
    values (old.user_id, old.customer_id, new.customer, old.meter, old.window_start, old.window_seconds, new.seq,
      old.value, old.nano, old.carry_nano_after, old.event_timestamp, new.identifier, old.attempts,
      new.next_attempt_at, new.last_error, old.account, old.original_window, 'reissue', old.id);
    old.state := 'superseded';
    old.next_attempt_at := null;
    return old;
  end if;
  raise exception 'stripe_meter_events: what is sent, and what has been decided, never changes: update refused'
    using errcode = 'restrict_violation', hint = '`gateway billing decide` makes a new event.';
end $$;
create trigger stripe_meter_events_never_change before update on public.stripe_meter_events
  for each row when (
    (old.customer, old.meter, old.window_start, old.window_seconds, old.seq, old.value, old.nano, old.event_timestamp,
      old.identifier)
    is distinct from
    (new.customer, new.meter, new.window_start, new.window_seconds, new.seq, new.value, new.nano, new.event_timestamp,
      new.identifier)
    or (old.user_id, old.customer_id, old.replaces) is distinct from (new.user_id, new.customer_id, new.replaces)
    or (old.state in ('settled', 'written_off', 'cancelled', 'superseded') and new.state <> old.state))
  execute function public.keep_meter_event();
