-- What books a row: when it counts, who pays for it, and the sums of it. Nothing calls these before switch_to_books.

-- Until when the books are sealed. Holds off seal_books until the caller's transaction has ended. VOLATILE on purpose: the
-- inner query then has a snapshot of its own, taken after the lock, so that a writer that had to wait sees the new bound.
create function public.books_sealed_until() returns timestamptz language plpgsql volatile set search_path = '' as $$
begin
  perform pg_advisory_xact_lock_shared(7446195881204317002);
  return (select b.sealed_until from public.books b);
end $$;

-- Seals the books up to an instant, never back: what completed before it and is inserted from now on is booked at the
-- instant of its insertion. When this has the lock, no writer is under way that has read the bound before.
create function public.seal_books(until timestamptz) returns timestamptz language plpgsql volatile set search_path = '' as $$
declare
  sealed timestamptz;
begin
  -- The row first: a transaction that writes it (the meter, the window) and then inserts takes the two in this order.
  perform 1 from public.books b for update;
  perform pg_advisory_xact_lock(7446195881204317002);
  update public.books b set sealed_until = greatest(b.sealed_until, until) returning b.sealed_until into sealed;
  return sealed;
end $$;

-- The customer who pays for a user at an instant.
create function public.payer_of(payee uuid, at timestamptz) returns uuid language sql stable set search_path = '' as $$
  select p.customer_id from public.user_customers p
  where p.user_id = payee and p.valid_from <= at and (p.valid_to is null or p.valid_to > at)
  limit 1
$$;

-- The payer of an adjustment: that of the row it adjusts; of a row that had none, who paid when that was completed, as far
-- as is known today. Nobody else is charged for it, nor given it back. `at`: when that row was completed, where it is not
-- in the ledger yet.
create function public.payer_of_adjustment(adjusted uuid, payee uuid, at timestamptz) returns uuid
language plpgsql stable set search_path = '' as $$
begin
  return (
    select coalesce(u.customer_id, public.payer_of(payee, coalesce(u.completed_at, at)))
    from (select true) as one left join public.openai_usage u on u.id = adjusted
  );
end $$;

-- Rows of a writer that knows nothing of books: those of the version before.
create function public.book_row() returns trigger language plpgsql set search_path = '' as $$
declare
  sealed constant timestamptz := public.books_sealed_until();
begin
  new.booked_at := case when new.completed_at >= sealed then new.completed_at
    else greatest(clock_timestamp(), sealed) end;
  new.customer_id := case when new.adjusts is null then public.payer_of(new.user_id, new.completed_at)
    else public.payer_of_adjustment(new.adjusts, new.user_id, new.completed_at) end;
  return new;
end $$;

-- Carries the rows that a statement has really inserted into every sum by booked_at, whoever inserted them. Of rows that
-- the backfill has booked (UPDATE) only the sums of usage: their amounts are in stripe_windows.
-- All upserts go in key order and the tables in this order, so two writers queue for a row but never deadlock.
create function public.book_usage() returns trigger language plpgsql set search_path = '' as $$
declare
  window_meter text;
  window_s integer;
  window_length interval;
  on_credit boolean := false;
  each record;
  payee uuid;
  used bigint;
  part bigint;
  -- What credit pays of each row, one place per row.
  payees uuid[] := '{}';
  payers uuid[] := '{}';
  booked timestamptz[] := '{}';
  parts bigint[] := '{}';
begin
  if tg_op = 'INSERT' then
    -- Balances first and in order: whoever has them decides alone what is left of each.
    perform 1 from public.credit_balances c
    where c.user_id in (select a.user_id from added a where a.billed_usd <> 0) order by c.user_id for update of c;
    on_credit := found;
  end if;

  insert into public.usage_daily as d (
    day, user_id, api_key_id, customer_id, model, endpoint, service_tier, evidence, calls, rows, late_rows,
    prompt_tokens, completion_tokens, total_tokens, cost_nano, billed_nano, billed_before_nano)
  select
    (booked_at at time zone 'UTC')::date, user_id, api_key_id, customer_id, model, endpoint, service_tier, evidence,
    count(*) filter (where adjusts is null), count(*), count(*) filter (where booked_at <> completed_at),
    coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0), coalesce(sum(total_tokens), 0),
    coalesce(sum(cost_usd) * 1000000000, 0)::bigint, coalesce(sum(billed_usd) * 1000000000, 0)::bigint,
    coalesce(sum(billed_usd) filter (where books_version = 0) * 1000000000, 0)::bigint
  from added
  group by 1, 2, 3, 4, 5, 6, 7, 8
  order by 1, 2, 3, 4, 5, 6, 7, 8
  on conflict on constraint usage_daily_key do update set
    calls = d.calls + excluded.calls,
    rows = d.rows + excluded.rows,
    late_rows = d.late_rows + excluded.late_rows,
    prompt_tokens = d.prompt_tokens + excluded.prompt_tokens,
    completion_tokens = d.completion_tokens + excluded.completion_tokens,
    total_tokens = d.total_tokens + excluded.total_tokens,
    cost_nano = d.cost_nano + excluded.cost_nano,
    billed_nano = d.billed_nano + excluded.billed_nano,
    billed_before_nano = d.billed_before_nano + excluded.billed_before_nano;

  insert into public.usage_daily_meetings as m (day, meeting_id, user_id, calls, cost_nano, billed_nano)
  select (booked_at at time zone 'UTC')::date, meeting_id, user_id, count(*) filter (where adjusts is null),
    coalesce(sum(cost_usd) * 1000000000, 0)::bigint, coalesce(sum(billed_usd) * 1000000000, 0)::bigint
  from added where meeting_id is not null
  group by 1, 2, 3
  order by 1, 2, 3
  on conflict (day, meeting_id, user_id) do update set
    calls = m.calls + excluded.calls,
    cost_nano = m.cost_nano + excluded.cost_nano,
    billed_nano = m.billed_nano + excluded.billed_nano;

  insert into public.units_due (usage_ids) select array_agg(id) from added having count(*) > 0;

  insert into public.late_rows (usage_id, booked_at) select id, booked_at from added where booked_at <> completed_at;

  if tg_op <> 'INSERT' then
    return null;
  end if;
  select b.meter, b.window_seconds into strict window_meter, window_s from public.books b;
  window_length := make_interval(secs => window_s);

  -- Credit pays first, row by row in order of their windows, and not more than is left; what it does not pay stays in the
  -- window. A negative amount gives back to the credit first, at most what usage has used of it.
  if on_credit then
    for each in
      select a.user_id, a.customer_id, a.booked_at, (a.billed_usd * 1000000000)::bigint as nano,
        c.left_nano + c.used_nano as granted, c.used_nano
      from added a join public.credit_balances c on c.user_id = a.user_id
      where a.billed_usd <> 0 and a.completed_at >= c.since
        and (a.customer_id is null
          or exists (select from public.customers p where p.id = a.customer_id and p.mode = 'prepaid'))
      order by a.user_id, date_bin(window_length, a.booked_at, timestamptz 'epoch'), a.id
    loop
      if each.user_id is distinct from payee then
        payee := each.user_id;
        used := each.used_nano;
      end if;
      part := case when each.nano > 0 then least(each.nano, greatest(each.granted - used, 0))
        else greatest(each.nano, -used) end;
      used := used + part;
      payees := payees || each.user_id;
      payers := payers || each.customer_id;
      booked := booked || each.booked_at;
      parts := parts || part;
    end loop;

    update public.credit_balances c set used_nano = c.used_nano + p.nano, updated_at = now()
    from (select u.payee, sum(u.part)::bigint as nano from unnest(payees, parts) as u(payee, part) group by 1) p
    where c.user_id = p.payee and p.nano <> 0;

    insert into public.credit_uses as s (user_id, day, nano)
    select u.payee, (u.at at time zone 'UTC')::date, sum(u.part)
    from unnest(payees, booked, parts) as u(payee, at, part) where u.part <> 0
    group by 1, 2
    order by 1, 2
    on conflict (user_id, day) do update set nano = s.nano + excluded.nano;
  end if;

  insert into public.billing_windows as w (
    customer_id, user_id, meter, window_start, window_seconds, billed_nano, credit_nano)
  select o.customer_id, case when o.customer_id is null then o.user_id end, window_meter,
    date_bin(window_length, o.booked_at, timestamptz 'epoch'), window_s, sum(o.nano), sum(o.credit)
  from (
    select customer_id, user_id, booked_at, (billed_usd * 1000000000)::bigint as nano, 0 as credit
    from added where billed_usd <> 0
    union all
    select u.payer, u.payee, u.at, 0, u.part from unnest(payers, payees, booked, parts) as u(payer, payee, at, part)
  ) as o
  group by 1, 2, 4
  order by 1, 2, 4
  on conflict on constraint billing_windows_key do update set
    billed_nano = w.billed_nano + excluded.billed_nano,
    credit_nano = w.credit_nano + excluded.credit_nano,
    window_seconds = greatest(w.window_seconds, excluded.window_seconds),
    updated_at = now();
  return null;
end $$;

-- What a writer of the version before adds to stripe_windows is in billing_windows already.
create function public.skip_row() returns trigger language plpgsql set search_path = '' as $$
begin
  return null;
end $$;
