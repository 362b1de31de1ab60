-- A call is asked for by the id that OpenAI gave its request (`gateway adjust req_…`, `gateway stripe explain req_…`). As
-- patterns are compared, byte by byte: the order of a language costs a writer more, and nobody asks for an order.
create index if not exists openai_usage_request_id_idx on public.openai_usage (request_id text_pattern_ops)
  where request_id is not null;
