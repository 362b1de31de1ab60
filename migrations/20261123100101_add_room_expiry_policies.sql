-- A signed-in user sees when their own rooms expire. Row security is as add_row_policies has it; like that file it may be
-- run again, after it, when a missing role was made later.
do $$
begin
  if exists (select from pg_roles where rolname = 'authenticated') then
    grant select (expires_at, expired_at, version) on public.rooms to authenticated;
  end if;
end $$;
