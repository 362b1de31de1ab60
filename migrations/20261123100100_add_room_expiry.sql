-- Rooms expire: what is sealed goes, what is harmless stays. And a version, so that two writers notice each other.
alter table public.rooms
  add column expires_at timestamptz,
  add column expired_at timestamptz,
  add column version integer not null default 1;

-- An expired room holds nothing sensitive, and nobody can put it back.
alter table public.rooms add constraint rooms_expired_is_erased
  check (expired_at is null or (state = 'expired' and sealed is null));

create index rooms_due_idx on public.rooms (expires_at) where expired_at is null and expires_at is not null;
create index rooms_created_at_idx on public.rooms (created_at, id);
