-- Reads the whole ledger and holds up nobody who reads or writes it.
alter table public.openai_usage validate constraint openai_usage_booked;
