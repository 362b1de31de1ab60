-- What corrections owe to a customer beyond what the usage of their period can take back: Stripe bills a negative period as
-- 0, so it waits for later usage, or for a credit note. The customer's windows hold carry + events − credit due.
alter table public.billing_carry
  add column credit_due_nano bigint not null default 0,
  add constraint billing_carry_bounds check (nano between 0 and 999 and credit_due_nano >= 0) not valid;
alter table public.stripe_meter_events
  add constraint stripe_meter_events_customer_id_fkey
    foreign key (customer_id) references public.customers (id) on delete restrict not valid;
