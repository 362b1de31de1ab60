-- Every user who has a Stripe customer gets it as their payer, from the beginning of time, and users.stripe_customer_id goes
-- on showing today's: writing it, by whichever version, begins a period at that instant; so many users may have one.
create function public.follow_stripe_customer() returns trigger language plpgsql set search_path = '' as $$
declare
  at constant timestamptz := clock_timestamp();
  current record;
  ends timestamptz;
  payer uuid;
begin
  select p.id, p.customer_id, p.valid_to into current from public.user_customers p
  where p.user_id = new.id and p.valid_from <= at and (p.valid_to is null or p.valid_to > at);
  if (select c.stripe_customer_id from public.customers c where c.id = current.customer_id)
    is not distinct from new.stripe_customer_id then
    return null;
  end if;
  -- A period that is already planned stays as it is.
  ends := coalesce(current.valid_to,
    (select min(p.valid_from) from public.user_customers p where p.user_id = new.id and p.valid_from > at));
  if current.id is not null then
    update public.user_customers set valid_to = at where id = current.id;
  end if;
  if new.stripe_customer_id is null then
    return null;
  end if;
  insert into public.customers (stripe_customer_id, mode)
  values (new.stripe_customer_id,
    case when exists (select from public.credit_balances b where b.user_id = new.id) then 'prepaid' else 'postpaid' end)
  on conflict (stripe_customer_id) do nothing;
  select c.id into payer from public.customers c where c.stripe_customer_id = new.stripe_customer_id;
  insert into public.user_customers (user_id, customer_id, valid_from, valid_to)
  values (new.id, payer, case when tg_op = 'INSERT' then '-infinity' else at end, ends);
  return null;
end $$;

-- One payer at a time.
create function public.refuse_second_payer() returns trigger language plpgsql set search_path = '' as $$
begin
  perform 1 from public.users u where u.id = new.user_id for no key update; -- two at once come one after the other
  if exists (
    select from public.user_customers p
    where p.user_id = new.user_id and p.id <> new.id
      and p.valid_from < coalesce(new.valid_to, 'infinity') and new.valid_from < coalesce(p.valid_to, 'infinity')
  ) then
    raise exception 'user % has another payer at that time', new.user_id
      using errcode = 'exclusion_violation', constraint = 'user_customers_one_at_a_time';
  end if;
  return new;
end $$;

create function public.show_stripe_customer() returns trigger language plpgsql set search_path = '' as $$
declare
  payee constant uuid := case when tg_op = 'DELETE' then old.user_id else new.user_id end;
  shown text;
begin
  select c.stripe_customer_id into shown
  from public.customers c where c.id = public.payer_of(payee, clock_timestamp());
  update public.users u set stripe_customer_id = shown
  where u.id = payee and u.stripe_customer_id is distinct from shown;
  return null;
end $$;

-- Whoever is given credit is prepaid: credit that lives here and credit that lives at Stripe do not go together.
create function public.add_to_balance() returns trigger language plpgsql set search_path = '' as $$
declare
  payer constant uuid := public.payer_of(new.user_id, clock_timestamp());
begin
  if exists (select from public.customers c where c.id = payer and c.mode = 'grants') then
    raise exception 'user % pays with credit grants at Stripe', new.user_id
      using errcode = 'check_violation', constraint = 'credit_entries_no_grants';
  end if;
  insert into public.credit_balances as b (user_id, since, granted_nano)
  values (new.user_id, new.created_at, (new.amount_usd * 1000000000)::bigint)
  on conflict (user_id) do update set
    since = least(b.since, excluded.since), granted_nano = b.granted_nano + excluded.granted_nano, updated_at = now();
  update public.customers c set mode = 'prepaid' where c.id = payer and c.mode = 'postpaid';
  return null;
end $$;

-- A lock on users and on credit_entries that writers of the ledger do not meet; what is added from here on, the triggers see.
lock table public.users, public.credit_entries in share row exclusive mode;

insert into public.credit_balances (user_id, since, granted_nano)
select user_id, min(created_at), (sum(amount_usd) * 1000000000)::bigint from public.credit_entries group by 1;
insert into public.customers (stripe_customer_id, mode)
select u.stripe_customer_id, case when b.user_id is null then 'postpaid' else 'prepaid' end
from public.users u left join public.credit_balances b on b.user_id = u.id where u.stripe_customer_id is not null;
insert into public.user_customers (user_id, customer_id, valid_from)
select u.id, c.id, '-infinity' from public.users u join public.customers c using (stripe_customer_id);

create trigger users_follow_stripe_customer after insert or update of stripe_customer_id on public.users
  for each row execute function public.follow_stripe_customer();
create trigger user_customers_one_at_a_time before insert or update on public.user_customers
  for each row execute function public.refuse_second_payer();
-- Not for what follow_stripe_customer does: it would see the user without a payer between two of its steps.
create trigger user_customers_show_stripe_customer after insert or update or delete on public.user_customers
  for each row when (pg_trigger_depth() = 0) execute function public.show_stripe_customer();
create trigger credit_entries_add_to_balance after insert on public.credit_entries
  for each row execute function public.add_to_balance();
