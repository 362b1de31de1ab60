-- Rows from before the books: booked when they were completed, and in the sums by day. `books.booked_up_to` says how far
-- this has come, so it can be broken off at any time. What made billed_usd is known where billed / cost is a mark-up of at
-- most six digits that gives it exactly.
do $$
declare
  most constant bigint := nullif(current_setting('gateway.batch_rows', true), '');
  begins uuid;
  ends uuid;
  done bigint := 0;
  chunk bigint;
begin
  select booked_up_to into begins from public.books for update;
  loop
    select c.id into ends
    from (select id from public.openai_usage where id > begins order by id limit coalesce(most, 10000)) c
    order by c.id desc limit 1;
    exit when ends is null;
    update public.openai_usage u set
      booked_at = u.completed_at,
      customer_id = case when u.adjusts is null then public.payer_of(u.user_id, u.completed_at)
        else public.payer_of_adjustment(u.adjusts, u.user_id, u.completed_at) end,
      plan_version = coalesce(
        (select 'markup:' || trim_scale(round(u.billed_usd / nullif(u.cost_usd, 0), digits))
          from generate_series(0, 6) as digits
          where abs(round(u.billed_usd / nullif(u.cost_usd, 0), digits) * u.cost_usd - u.billed_usd) <= 0.0000000005
          order by digits limit 1),
        case when u.cost_usd = 0 and u.billed_usd = 0 then 'markup:1' else 'legacy' end)
    where u.id > begins and u.id <= ends and u.booked_at is null;
    get diagnostics chunk = row_count;
    update public.books set booked_up_to = ends;
    begins := ends;
    done := done + greatest(chunk, 1);
    exit when most is not null;
  end loop;
  perform set_config('gateway.batch_done', done::text, true);
end $$;
