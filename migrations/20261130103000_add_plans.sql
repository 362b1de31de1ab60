-- What a customer pays for what a call costs: versions of plans, each with its time. A row of the ledger names the version
-- that made its amount (`plan_version`: `<name>@<version>`), so a version never changes; only its end is set, once.

-- Rises with every change that matters to plans: processes ask for this number and read the plans when it is another one.
-- Whoever changes a plan holds this row until the commit, so the checks below see all other plans.
create table public.plan_changes (
  only_row boolean primary key default true check (only_row),
  number bigint not null default 0
);
insert into public.plan_changes default values;

-- Whether this is an exact decimal, written as text, from 0 to `most` with so many decimals at most.
create function public.is_plan_number(value jsonb, most numeric, decimals integer) returns boolean
language sql immutable set search_path = '' as $$
  select case when jsonb_typeof(value) = 'string' and value #>> '{}' ~ '^[0-9]{1,9}([.][0-9]{1,18})?$'
    then (value #>> '{}')::numeric <= most and scale((value #>> '{}')::numeric) <= decimals else false end
$$;

-- Whether these are prices by unit of a cost line, USD for each unit; `{}` is none, and right.
create function public.are_unit_prices(units jsonb) returns boolean
language sql immutable set search_path = '' as $$
  select jsonb_typeof(units) = 'object' and not exists (
    select from jsonb_each(case jsonb_typeof(units) when 'object' then units else '{}' end) as of_unit (unit, usd)
    where unit = '' or not public.is_plan_number(usd, 1000000, 18))
$$;

-- Whether these are prices of a model: by unit, for all service tiers, and by tier and unit.
create function public.are_model_prices(units jsonb) returns boolean
language sql immutable set search_path = '' as $$
  select case when jsonb_typeof(units) <> 'object' or units = '{}' then false else
    public.are_unit_prices(units - '{default,flex,priority,ultrafast}'::text[]) and not exists (
      select from jsonb_each(units) as of_tier (tier, prices)
      where tier in ('default', 'flex', 'priority', 'ultrafast')
        and (prices = '{}' or not public.are_unit_prices(prices))) end
$$;

-- Whether these are rates of that kind (gateway/usage/plans.py reads them). `discount`: per cent off OpenAI's price.
-- `price_list`: own prices by model; what the list lacks is OpenAI's price × factor.
create function public.are_plan_rates(kind text, rates jsonb) returns boolean
language sql immutable set search_path = '' as $$
  select case kind
    when 'free' then rates = '{}'
    when 'markup' then rates - 'factor' = '{}' and public.is_plan_number(rates -> 'factor', 1000, 9)
    when 'discount' then rates - 'percent' = '{}' and public.is_plan_number(rates -> 'percent', 100, 7)
    when 'price_list' then rates - '{factor,usd_per_unit}'::text[] = '{}'
      and public.is_plan_number(rates -> 'factor', 1000, 9)
      and jsonb_typeof(rates -> 'usd_per_unit') = 'object' and rates -> 'usd_per_unit' <> '{}'
      and not exists (select from jsonb_each(case jsonb_typeof(rates -> 'usd_per_unit') when 'object'
        then rates -> 'usd_per_unit' else '{}' end) as of_model (model, units)
        where model = '' or not public.are_model_prices(units))
    else false end
$$;

create table public.plans (
  id bigint generated always as identity primary key,
  name text not null check (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
  version integer not null check (version > 0),
  -- Whose calls (one of the three, or anybody's), and which (one of the two, or any).
  api_key_id uuid references public.api_keys (id) on delete restrict,
  user_id uuid references public.users (id) on delete restrict,
  customer_id uuid references public.customers (id) on delete restrict,
  model text check (length(model) between 1 and 256),
  endpoint text check (length(endpoint) between 1 and 100),
  scope text not null generated always as (case
    when num_nonnulls(api_key_id, user_id, customer_id, model, endpoint) = 0 then 'default'
    else ltrim(coalesce(' key:' || api_key_id::text, '') || coalesce(' user:' || user_id::text, '')
      || coalesce(' customer:' || customer_id::text, '') || coalesce(' model:' || model, '')
      || coalesce(' endpoint:' || endpoint, ''), ' ') end) stored,
  kind text not null check (kind in ('markup', 'discount', 'price_list', 'free')),
  rates jsonb not null check (octet_length(rates::text) <= 4194304),
  valid_from timestamptz not null,
  valid_to timestamptz, -- the first instant at which it no longer holds; NULL: until further notice
  digest text not null check (digest ~ '^[0-9a-f]{64}$'), -- SHA-256 of what never changes (gateway/usage/plans.py)
  made_at timestamptz not null default clock_timestamp(),
  made_by text not null check (length(made_by) between 1 and 1000),
  ended_at timestamptz, -- when valid_to was set after it was made, and by whom
  ended_by text check (length(ended_by) between 1 and 1000),
  constraint plans_version_key unique (name, version),
  constraint plans_whose check (num_nonnulls(api_key_id, user_id, customer_id) <= 1),
  constraint plans_which check (num_nonnulls(model, endpoint) <= 1),
  constraint plans_in_order check (valid_to >= valid_from),
  constraint plans_rates_fit check (public.are_plan_rates(kind, rates))
);
create index plans_api_key_id_idx on public.plans (api_key_id);
create index plans_user_id_idx on public.plans (user_id);
create index plans_customer_id_idx on public.plans (customer_id);
create index plans_valid_to_idx on public.plans (valid_to);

-- What is written once stays; in one scope, one version holds at a time.
create function public.check_plan() returns trigger language plpgsql set search_path = '' as $$
declare
  other record;
begin
  update public.plan_changes set number = number + 1;
  if tg_op = 'UPDATE' then
    if old.valid_to is not null or new.valid_to is null
        or to_jsonb(new) - '{valid_to,ended_at,ended_by,scope}'::text[]
          <> to_jsonb(old) - '{valid_to,ended_at,ended_by,scope}'::text[] then
      raise exception 'a version of a plan never changes: % refused', lower(tg_op)
        using errcode = 'restrict_violation', hint = 'Its end is set once; anything else is a new version.';
    end if;
    new.ended_at := clock_timestamp();
    return new;
  end if;
  new.made_at := clock_timestamp();
  select * into other from public.plans p where p.name = new.name order by p.version desc limit 1;
  if new.version <> coalesce(other.version, 0) + 1 then
    raise exception 'the next version of plan % is %', new.name, coalesce(other.version, 0) + 1
      using errcode = 'restrict_violation';
  end if;
  if other.version is not null and (other.api_key_id, other.user_id, other.customer_id, other.model, other.endpoint)
      is distinct from (new.api_key_id, new.user_id, new.customer_id, new.model, new.endpoint) then
    raise exception 'all versions of plan % have one scope: %', new.name, other.scope
      using errcode = 'restrict_violation', hint = 'Another scope needs a plan with another name.';
  end if;
  select * into other from public.plans p
  where (p.api_key_id, p.user_id, p.customer_id, p.model, p.endpoint)
      is not distinct from (new.api_key_id, new.user_id, new.customer_id, new.model, new.endpoint)
    and greatest(p.valid_from, new.valid_from) < least(coalesce(p.valid_to, 'infinity'), coalesce(new.valid_to, 'infinity'))
  limit 1;
  if found then
    raise exception 'plan %@% holds in this scope at that time', other.name, other.version
      using errcode = 'exclusion_violation', hint = 'End it first.';
  end if;
  return new;
end $$;
create trigger plans_check before insert or update on public.plans
  for each row execute function public.check_plan();
alter table public.plans enable always trigger plans_check;
create trigger plans_append_only before delete or truncate on public.plans
  for each statement execute function public.refuse_change();
alter table public.plans enable always trigger plans_append_only;

-- At the commit: a start and an end lie so far ahead that every process knows of them by then.
create function public.check_plan_lead() returns trigger language plpgsql set search_path = '' as $$
begin
  if (case tg_op when 'INSERT' then new.valid_from else new.valid_to end) < clock_timestamp() + interval '60 seconds' then
    raise exception 'a plan starts and ends at least 60 seconds ahead, so that every proxy has it'
      using errcode = 'restrict_violation';
  end if;
  return null;
end $$;
create constraint trigger plans_lead after insert or update on public.plans
  deferrable initially deferred for each row execute function public.check_plan_lead();

-- Who pays for whom matters to the plans of customers.
create function public.tell_plans_of_payers() returns trigger language plpgsql set search_path = '' as $$
begin
  if exists (select from public.plans where customer_id is not null) then
    update public.plan_changes set number = number + 1;
  end if;
  return null;
end $$;
revoke all on function public.tell_plans_of_payers() from public;
create trigger user_customers_plans after insert or update or delete on public.user_customers
  for each statement execute function public.tell_plans_of_payers();

alter table public.plan_changes enable row level security;
alter table public.plans enable row level security;
