-- Who has seen to an entry of the quarantine, and in a word why it could not be a row (never what is in it).
alter table public.usage_quarantine add column kind text, add column resolved_by text;
