-- Who may read and keep price books: the backend, and the worker, which writes down the book that it has. The functions of
-- triggers are called by nobody. May be run again when a missing role was made later.
do $$
declare
  have_role text;
begin
  foreach have_role in array array['public', 'anon', 'authenticated', 'service_role'] loop
    continue when have_role <> 'public' and not exists (select from pg_roles where rolname = have_role);
    execute format('revoke all on public.price_books from %s', have_role);
    execute format('revoke all on function public.keep_closed_period() from %s', have_role);
  end loop;
  if exists (select from pg_policies where schemaname = 'public' and policyname = 'price_books_service') then
    drop policy price_books_service on public.price_books;
  end if;
  if exists (select from pg_roles where rolname = 'service_role') then
    grant select, insert on public.price_books to service_role;
    create policy price_books_service on public.price_books for all to service_role using (true) with check (true);
  end if;
  if exists (select from pg_policies where schemaname = 'public' and policyname = 'price_books_processes') then
    drop policy price_books_processes on public.price_books;
  end if;
  if exists (select from pg_roles where rolname = 'gateway_worker')
    and exists (select from pg_roles where rolname = 'gateway_reports') then
    grant select, insert on public.price_books to gateway_worker;
    grant select on public.price_books to gateway_reports;
    create policy price_books_processes on public.price_books for all to gateway_worker, gateway_reports
      using (true) with check (true);
  end if;
  if exists (select from pg_policies where schemaname = 'public' and policyname = 'price_books_owner') then
    drop policy price_books_owner on public.price_books;
  end if;
  execute format('create policy price_books_owner on public.price_books for all to %I using (true) with check (true)',
    (select pg_get_userbyid(relowner) from pg_class where oid = 'public.price_books'::regclass));
end $$;
alter table public.price_books force row level security;
