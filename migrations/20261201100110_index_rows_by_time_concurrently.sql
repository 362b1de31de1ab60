-- The rows of a range of time, for audits and reports. A small row may be put into what is left of an old page, and then a
-- question about its day reads all pages that share a summary with that one: 16 of them, where the first such index has 128.
create index if not exists openai_usage_created_at_fine_idx on public.openai_usage using brin (created_at)
  with (pages_per_range = 16, autosummarize = on);
