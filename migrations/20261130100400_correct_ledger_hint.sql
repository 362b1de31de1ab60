-- A correction is made by a command, which knows everything that belongs to it.
create or replace function public.refuse_change() returns trigger language plpgsql set search_path = '' as $$
begin
  raise exception '% is append-only: % refused', tg_table_name, lower(tg_op)
    using errcode = 'restrict_violation', hint = case tg_table_name
      when 'openai_usage' then 'Correct a row with `gateway adjust`.'
      else 'Insert a row that corrects it.' end;
end $$;
