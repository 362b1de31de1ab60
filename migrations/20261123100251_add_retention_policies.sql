-- A function of a trigger, which nobody calls by name. May be run again when a missing role was made later.
do $$
declare
  have_role text;
begin
  foreach have_role in array array['public', 'anon', 'authenticated', 'service_role'] loop
    continue when have_role <> 'public' and not exists (select from pg_roles where rolname = have_role);
    execute format('revoke all on function public.keep_anonymous() from %s', have_role);
  end loop;
end $$;
