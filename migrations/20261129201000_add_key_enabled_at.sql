-- When a command of ours last let a key in again (enabled it, gave it more time). A proxy that remembers a key as
-- ended believes Unkey's "valid" again only then: one of Unkey's nodes may still have it from its cache.
alter table public.api_keys add column enabled_at timestamptz;
