-- The platform's six tables, and the roles and auth.uid() that Supabase has and a plain PostgreSQL (>= 15) lacks.
-- Must not touch what Supabase made itself, nor assume that the migrating login is a superuser.

-- Roles and auth.uid(): made only where absent. A login that may not make roles goes on without them:
-- row security is on either way, and nobody but the owner is granted anything.
do $$
declare
  wanted record;
begin
  for wanted in
    select * from (values
      ('anon', 'create role anon nologin noinherit'),
      ('authenticated', 'create role authenticated nologin noinherit'),
      ('service_role', 'create role service_role nologin noinherit bypassrls')
    ) as roles(name, ddl)
  loop
    continue when exists (select from pg_roles where rolname = wanted.name);
    begin
      execute wanted.ddl;
    exception
      when duplicate_object or unique_violation then null; -- another database of this cluster was faster
      when insufficient_privilege then
        begin
          execute format('create role %I nologin noinherit', wanted.name);
          raise notice 'role % made without BYPASSRLS; its policies let it pass', wanted.name;
        exception
          when duplicate_object or unique_violation then null;
          when insufficient_privilege then
            raise notice 'role % is missing and may not be made by %: its policies are skipped', wanted.name, current_user;
        end;
    end;
  end loop;
end $$;

do $$
begin
  if to_regprocedure('auth.uid()') is null then
    create schema if not exists auth;
    create function auth.uid() returns uuid language sql stable as $f$
      select coalesce(
        nullif(current_setting('request.jwt.claim.sub', true), ''),
        nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
      )::uuid
    $f$;
    grant usage on schema auth to public;
  end if;
end $$;

create function public.set_updated_at() returns trigger language plpgsql set search_path = '' as $$
begin
  new.updated_at := now();
  return new;
end $$;

create function public.refuse_change() returns trigger language plpgsql set search_path = '' as $$
begin
  raise exception '% is append-only: % refused', tg_table_name, lower(tg_op)
    using errcode = 'restrict_violation', hint = 'Insert an adjustment row that names the row it corrects.';
end $$;

-- Accounts. Never deleted or merged, only deactivated: ledger rows point at them.
create table public.users (
  id uuid primary key default gen_random_uuid(),
  email text not null unique,
  name text,
  stripe_customer_id text unique,
  is_active boolean not null default true,
  last_login_at timestamptz,
  metadata jsonb not null default '{}',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint users_stripe_customer_not_empty check (stripe_customer_id <> '')
);
create unique index users_email_lower_key on public.users (lower(email));

-- Keys that Unkey holds; the secret itself is never here.
create table public.api_keys (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null references public.users (id) on delete restrict,
  unkey_key_id text not null unique,
  name text,
  description text,
  last_used_at timestamptz,
  usage_count bigint not null default 0,
  is_active boolean not null default true,
  expires_at timestamptz,
  revoked_at timestamptz,
  created_at timestamptz not null default now()
) with (fillfactor = 70); -- usage_count changes with every batch: leave room for in-page updates
create index api_keys_user_id_idx on public.api_keys (user_id, created_at);

-- Daily.co meetings. Daily uses a room name again, so a name is unique only among meetings not yet ended.
create table public.meetings (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null references public.users (id) on delete restrict,
  room_name text not null,
  daily_meeting_id text unique,
  status text not null default 'scheduled',
  scheduled_at timestamptz,
  started_at timestamptz,
  ended_at timestamptz,
  duration_seconds integer,
  recording_url text,
  transcript_url text,
  metadata jsonb not null default '{}',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint meetings_status_known check (status in ('scheduled', 'in_progress', 'ended', 'cancelled')),
  constraint meetings_duration_positive check (duration_seconds >= 0)
);
create unique index meetings_room_name_open_key on public.meetings (room_name) where ended_at is null;
create index meetings_room_name_idx on public.meetings (room_name, created_at);
create index meetings_user_id_idx on public.meetings (user_id, created_at);
create index meetings_status_idx on public.meetings (status, created_at);

create table public.participants (
  id uuid primary key default gen_random_uuid(),
  meeting_id uuid not null references public.meetings (id) on delete restrict,
  daily_participant_id text,
  name text,
  email text,
  role text not null default 'guest',
  joined_at timestamptz,
  left_at timestamptz,
  duration_seconds integer,
  metadata jsonb not null default '{}',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint participants_role_known check (role in ('host', 'guest', 'bot')),
  constraint participants_duration_positive check (duration_seconds >= 0)
);
create unique index participants_daily_key on public.participants (meeting_id, daily_participant_id);
create index participants_meeting_id_idx on public.participants (meeting_id, joined_at);
create index participants_email_idx on public.participants (email);

-- The ledger: one row per call that might have cost money. Append-only.
-- Tokens are counts, money is USD exact to 1e-9. created_at is completed_at; inserted_at is the database's clock.
create table public.openai_usage (
  id uuid primary key,
  user_id uuid not null references public.users (id) on delete restrict,
  meeting_id uuid references public.meetings (id) on delete restrict,
  api_key_id uuid references public.api_keys (id) on delete restrict,
  adjusts uuid references public.openai_usage (id) on delete restrict,
  endpoint text not null,
  model text not null,
  service_tier text,
  evidence text not null,
  prompt_tokens bigint,
  completion_tokens bigint,
  total_tokens bigint,
  cost_usd numeric(20, 9),
  billed_usd numeric(20, 9),
  price_version text not null default '',
  cost_lines jsonb not null default '[]',
  usage jsonb,
  response_id text,
  request_id text,
  metadata jsonb not null default '{}',
  started_at timestamptz not null,
  completed_at timestamptz not null,
  created_at timestamptz not null generated always as (completed_at) stored,
  inserted_at timestamptz not null default now(),
  constraint openai_usage_evidence_known
    check (evidence in ('reported', 'drained', 'estimated', 'unpriced', 'void', 'adjustment')),
  constraint openai_usage_cost_null_iff_unpriced check ((cost_usd is null) = (evidence = 'unpriced')),
  constraint openai_usage_billed_null_iff_cost check ((billed_usd is null) = (cost_usd is null)),
  constraint openai_usage_adjustment_names_row check ((adjusts is not null) = (evidence = 'adjustment')),
  constraint openai_usage_adjusts_another check (adjusts <> id),
  constraint openai_usage_adjustment_no_response check (evidence <> 'adjustment' or response_id is null),
  constraint openai_usage_void_costs_nothing check (evidence <> 'void' or (cost_usd = 0 and billed_usd = 0)),
  constraint openai_usage_only_adjustments_negative check (
    evidence = 'adjustment'
    or (
      coalesce(prompt_tokens, 0) >= 0 and coalesce(completion_tokens, 0) >= 0 and coalesce(total_tokens, 0) >= 0
      and coalesce(cost_usd, 0) >= 0 and coalesce(billed_usd, 0) >= 0
    )
  ),
  constraint openai_usage_json_shapes check (
    jsonb_typeof(metadata) = 'object' and jsonb_typeof(cost_lines) = 'array'
    and coalesce(jsonb_typeof(usage), 'object') in ('object', 'array', 'null')
  )
);
-- An upstream answer is billed once; a second row for it goes to quarantine, where it is seen.
create unique index openai_usage_response_id_key on public.openai_usage (response_id)
  where response_id is not null and adjusts is null;
create index openai_usage_user_id_idx on public.openai_usage (user_id, created_at);
create index openai_usage_api_key_id_idx on public.openai_usage (api_key_id, created_at);
create index openai_usage_meeting_id_idx on public.openai_usage (meeting_id, created_at) where meeting_id is not null;
create index openai_usage_model_idx on public.openai_usage (model, created_at);
create index openai_usage_adjusts_idx on public.openai_usage (adjusts) where adjusts is not null;
create index openai_usage_unsure_idx on public.openai_usage (evidence, created_at)
  where evidence in ('estimated', 'unpriced');
create index openai_usage_created_at_idx on public.openai_usage using brin (created_at) with (autosummarize = on);

-- Per statement, so that even a change that matches no row is refused; ALWAYS, so that replication mode is too.
create trigger openai_usage_append_only before update or delete or truncate on public.openai_usage
  for each statement execute function public.refuse_change();
alter table public.openai_usage enable always trigger openai_usage_append_only;

-- State of an interview or meeting session. What is sensitive is in `sealed`, encrypted by the application.
create table public.rooms (
  id uuid primary key default gen_random_uuid(),
  room_name text not null,
  user_id uuid references public.users (id) on delete restrict,
  meeting_id uuid references public.meetings (id) on delete restrict,
  state text not null default 'created',
  data jsonb not null default '{}',
  sealed bytea,
  sealed_key_id text,
  source_id text unique, -- where a row was loaded from, so that a load can be run twice
  started_at timestamptz,
  ended_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint rooms_sealed_names_key check ((sealed is null) = (sealed_key_id is null))
);
create index rooms_room_name_idx on public.rooms (room_name, created_at);
create index rooms_user_id_idx on public.rooms (user_id, created_at);
create index rooms_meeting_id_idx on public.rooms (meeting_id);
create index rooms_sealed_key_id_idx on public.rooms (sealed_key_id) where sealed_key_id is not null;

create trigger users_updated_at before update on public.users
  for each row execute function public.set_updated_at();
create trigger meetings_updated_at before update on public.meetings
  for each row execute function public.set_updated_at();
create trigger participants_updated_at before update on public.participants
  for each row execute function public.set_updated_at();
create trigger rooms_updated_at before update on public.rooms
  for each row execute function public.set_updated_at();

-- On from the first moment; the policies follow in their own file.
alter table public.users enable row level security;
alter table public.api_keys enable row level security;
alter table public.meetings enable row level security;
alter table public.participants enable row level security;
alter table public.openai_usage enable row level security;
alter table public.rooms enable row level security;
