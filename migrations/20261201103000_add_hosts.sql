-- Every host that takes calls: a data folder with its journal. Its keeper renews the lease here and in Redis; a host
-- whose two leases are over is lost, and a worker settles what Redis knows of its calls.
create table public.hosts (
  id uuid primary key, -- made once, in the data folder
  name text not null, -- of the machine, for people
  seen_at timestamptz not null default now(),
  lease_until timestamptz not null,
  open_calls integer not null default 0, -- when it was last seen
  unconfirmed_calls integer not null default 0,
  ended_at timestamptz, -- stopped with nothing left, or lost and swept
  lost_at timestamptz, -- when a worker found both leases over; a host that is seen again has none
  swept_calls bigint not null default 0,
  sweeper text, -- the worker that settles the calls of a lost one
  sweeper_until timestamptz -- until then nobody else does
) with (fillfactor = 50); -- a row changes every few seconds, and stays on its page
alter table public.hosts enable row level security;
-- No column of it changes with the lease.
create index hosts_living_idx on public.hosts (name) where ended_at is null;
create index hosts_lost_idx on public.hosts (lost_at) where lost_at is not null;
