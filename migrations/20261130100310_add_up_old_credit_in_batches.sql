-- What usage from before payers has used of prepaid credit, one user per transaction: the balance is locked only while it
-- is written, not while the rows are read. At once after the switch: until then a call may be paid by credit that earlier
-- ones have used, and what is left is below 0 afterwards.
do $$
declare
  one_at_a_time constant boolean := nullif(current_setting('gateway.batch_rows', true), '') is not null;
  done bigint := 0;
begin
  loop
    update public.credit_balances b set updated_at = now(), used_before_nano = (
      select coalesce(sum(u.billed_usd) * 1000000000, 0)::bigint from public.openai_usage u
      where u.user_id = b.user_id and u.created_at >= b.since and u.books_version = 0)
    where b.user_id = (select user_id from public.credit_balances where used_before_nano is null order by 1 limit 1);
    exit when not found;
    done := done + 1;
    exit when one_at_a_time;
  end loop;
  perform set_config('gateway.batch_done', done::text, true);
end $$;
