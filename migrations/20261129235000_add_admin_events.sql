-- Who has changed what by hand, or has read what is sealed. Never a secret, an address of a participant or a room's fields.
create table public.admin_events (
  id bigint generated always as identity primary key,
  created_at timestamptz not null default clock_timestamp(),
  actor_kind text not null check (actor_kind in ('operator', 'key')),
  actor text not null check (length(actor) between 1 and 1000), -- an operator's name, or Unkey's id of a key
  verb text not null check (verb <> ''),
  subject text not null check (subject <> ''), -- a kind of thing: key, user, budget …
  subject_id text, -- NULL in an intent to make something whose id is not known yet
  -- What is changed elsewhere (at Unkey, at Daily.co) or in many steps has two events: the intent before, the outcome
  -- after. An intent without an outcome: the command was killed, and what it has done is not known.
  phase text not null default 'done' check (phase in ('intent', 'done', 'failed')),
  intent_id bigint references public.admin_events (id) on delete restrict,
  before jsonb,
  after jsonb
);
create index admin_events_created_at_idx on public.admin_events (created_at);
create index admin_events_subject_idx on public.admin_events (subject, subject_id, id);
create index admin_events_actor_idx on public.admin_events (actor, id);
-- One outcome of an intent.
create unique index admin_events_intent_id_key on public.admin_events (intent_id);
create trigger admin_events_append_only before update or delete or truncate on public.admin_events
  for each statement execute function public.refuse_change();
alter table public.admin_events enable always trigger admin_events_append_only;
alter table public.admin_events enable row level security;
