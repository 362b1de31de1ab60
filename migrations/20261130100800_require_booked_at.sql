-- Every row from here on; those before are looked at by the next file, under a lock that writers do not meet.
alter table public.openai_usage add constraint openai_usage_booked check (booked_at is not null) not valid;
