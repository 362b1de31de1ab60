-- What is billed and not frozen moves from stripe_windows to billing_windows: to today's customer, and to the user where
-- there is none. frozen_nano becomes nano, so that a reporter of the version before finds nothing to freeze; moved_nano
-- keeps the amount. A group is a user and a meter; the lock on its row of stripe_carry is the one with which a reporter
-- freezes. `gateway.batch_rows` bounds the windows of one transaction (docs/schema.md).
do $$
declare
  most constant bigint := nullif(current_setting('gateway.batch_rows', true), '');
  each record;
  groups bigint := 0;
begin
  for each in
    select w.user_id, w.meter, c.id as customer_id
    from public.stripe_windows w
    join public.users u on u.id = w.user_id
    left join public.customers c on c.stripe_customer_id = u.stripe_customer_id
    where w.unfrozen group by 1, 2, 3 order by 1, 2 limit case when most is null then null else 20 end
  loop
    groups := groups + 1;
    insert into public.stripe_carry (user_id, meter) values (each.user_id, each.meter) on conflict do nothing;
    perform 1 from public.stripe_carry s where s.user_id = each.user_id and s.meter = each.meter for update;
    with taken as (
      select w.window_start, w.window_seconds, w.nano - w.frozen_nano as nano, w.next_seq
      from public.stripe_windows w
      where w.user_id = each.user_id and w.meter = each.meter and w.unfrozen
      order by w.window_start limit most / 20 + 1
    ),
    moved as (
      update public.stripe_windows w set frozen_nano = w.frozen_nano + t.nano, moved_nano = w.moved_nano + t.nano
      from taken t where w.user_id = each.user_id and w.meter = each.meter and w.window_start = t.window_start
    )
    insert into public.billing_windows as b (
      customer_id, user_id, meter, window_start, window_seconds, billed_nano, moved_nano, next_seq)
    select each.customer_id, case when each.customer_id is null then each.user_id end, each.meter, t.window_start,
      t.window_seconds, t.nano, t.nano, t.next_seq
    from taken t order by t.window_start
    on conflict on constraint billing_windows_key do update set
      billed_nano = b.billed_nano + excluded.billed_nano,
      moved_nano = b.moved_nano + excluded.moved_nano,
      next_seq = greatest(b.next_seq, excluded.next_seq),
      window_seconds = greatest(b.window_seconds, excluded.window_seconds),
      updated_at = now();
  end loop;
  perform set_config('gateway.batch_done', groups::text, true);
end $$;
