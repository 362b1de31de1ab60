#!/usr/bin/env bash
# Roles and logins of the gateway in PostgreSQL. The image runs it when its volume is new; run it by hand when a password
# in deploy/.env has changed, or for a volume that is older than this file (deploy/README.md). Needs a superuser.
# Must not put a password on a command line: psql reads them from its environment.
set -euo pipefail

psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "${POSTGRES_DB:-gateway}" <<'SQL'
select format('create role %I nologin noinherit%s', name, options)
from (values ('anon', ''), ('authenticated', ''), ('service_role', ' bypassrls'), ('gateway_proxy', ''),
  ('gateway_keeper', ''), ('gateway_worker', ''), ('gateway_reports', '')) as groups(name, options)
where not exists (select from pg_roles where rolname = name) \gexec

-- The owner of the database runs `gateway migrate`; the others own nothing.
\getenv owner OWNER_PASSWORD
\getenv app APP_PASSWORD
\getenv proxy PROXY_PASSWORD
\getenv keeper KEEPER_PASSWORD
\getenv worker WORKER_PASSWORD
\getenv reports REPORTS_PASSWORD
-- The server's log must not keep these statements.
set log_statement = 'none';
set log_min_duration_statement = -1;
set log_min_error_statement = 'panic';
create temporary table logins (name text, password text, member_of text[]);
-- Commands do all that service_role may, and book corrections in the ledger, which only gateway_worker may.
insert into logins values ('gateway_owner', :'owner', '{}'), ('gateway_app', :'app', '{service_role,gateway_worker}'),
  ('gateway_proxy_login', :'proxy', '{gateway_proxy}'), ('gateway_keeper_login', :'keeper', '{gateway_keeper}'),
  ('gateway_worker_login', :'worker', '{gateway_worker}'), ('gateway_reports_login', :'reports', '{gateway_reports}');
select format('create role %I', name) from logins where not exists (select from pg_roles where rolname = name) \gexec
select format('alter role %I login nosuperuser nocreatedb nocreaterole password %L', name, password) from logins \gexec
select format('grant %I to %I', granted, name) from logins, unnest(member_of) as granted \gexec
select format('alter database %I owner to gateway_owner', current_database()) \gexec
select format('revoke connect, temporary on database %I from public', current_database()) \gexec
select format('grant connect on database %I to %I', current_database(), name) from logins \gexec
SQL
