-- One group role for each kind of process, with no more rights than its statements need (docs/schema.md). Nobody logs in
-- with these: a login is made a member of one. A login that may not make roles goes on without them and says so; then
-- every process works with the rights of DATABASE_URL, as before.
do $$
declare
  wanted text;
begin
  foreach wanted in array array['gateway_proxy', 'gateway_keeper', 'gateway_worker', 'gateway_reports'] loop
    continue when exists (select from pg_roles where rolname = wanted);
    begin
      execute format('create role %I nologin', wanted);
    exception
      when duplicate_object or unique_violation then null; -- another database of this cluster was faster
      when insufficient_privilege then
        raise notice 'role % is missing and may not be made by %: its grants are skipped', wanted, current_user;
    end;
  end loop;
end $$;
