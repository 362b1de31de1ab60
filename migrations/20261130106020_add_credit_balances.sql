-- The credit that customers of mode `grants` have left at Stripe, as the limits of their calls need it.
create table public.stripe_credit_balances (
  customer_id uuid primary key references public.customers (id) on delete restrict,
  available bigint, -- cents of USD, which the next invoice may draw
  -- Stripe draws on credit when an invoice becomes final. Usage that Stripe files from here on has drawn nothing yet.
  invoiced_until timestamptz,
  asked_at timestamptz, -- this database's clock, before Stripe was asked; NULL: not read yet, and nothing is bounded
  due_at timestamptz not null, -- when it is read again; a worker that begins to read moves it
  constraint stripe_credit_balances_read_whole check (num_nulls(available, invoiced_until, asked_at) in (0, 3))
);
alter table public.stripe_credit_balances enable row level security;
create index customers_grants_idx on public.customers (id) where mode = 'grants';

-- What a customer has used that no final invoice has, nano-USD: in windows, carried, and in meter events that Stripe files
-- from `since` on.
create function public.uninvoiced_nano(payer uuid, since timestamptz) returns bigint
language sql stable set search_path = '' as $$
  select (
    coalesce((
      select sum(e.value) * 1000 from public.stripe_meter_events e
      where e.customer = (select c.stripe_customer_id from public.customers c where c.id = payer)
        and e.meter = (select b.meter from public.books b) and e.event_timestamp >= since
        and e.state in ('pending', 'sent', 'duplicate', 'unknown')
    ), 0)
    + coalesce((
      select sum(w.billed_nano - w.credit_nano - w.frozen_nano - w.settled_nano) from public.billing_windows w
      where w.customer_id = payer and w.open
    ), 0)
    + coalesce((select sum(b.nano - b.credit_due_nano) from public.billing_carry b where b.customer_id = payer), 0)
  )::bigint
$$;
