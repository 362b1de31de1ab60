-- Which migrations there are: a gateway whose login owns nothing looks before it starts. May be run again when a missing
-- role was made later.
do $$
begin
  if exists (select from pg_roles where rolname = 'service_role') then
    grant usage on schema supabase_migrations to service_role;
    grant select on supabase_migrations.schema_migrations to service_role;
  end if;
exception
  when insufficient_privilege then
    raise notice 'supabase_migrations is somebody else''s: service_role may not look at it';
end $$;
