-- openai_usage_created_at_fine_idx has taken its place.
drop index if exists public.openai_usage_created_at_idx;
