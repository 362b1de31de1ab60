-- Many users may have one Stripe customer.
create index users_stripe_customer_id_idx on public.users (stripe_customer_id);
alter table public.users drop constraint users_stripe_customer_id_key;
