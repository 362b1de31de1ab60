-- What OpenAI said, where jsonb cannot hold it: NUL, half a surrogate pair, a number beyond numeric. Bytes, bounded.
-- The column is new, so no row can break these rules, and a long ledger need not be read for them.
alter table public.openai_usage add column usage_raw bytea;
alter table public.openai_usage
  add constraint openai_usage_usage_raw_bounded check (octet_length(usage_raw) <= 65536) not valid,
  add constraint openai_usage_usage_kept_once check (usage is null or usage_raw is null) not valid;
