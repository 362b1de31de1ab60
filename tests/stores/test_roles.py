"""Who may see what, on Supabase's roles and where the migrating login may make none.

Roles are cluster-wide, so these tests have a server of their own.
"""

from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from gateway.embedded import ephemeral
from gateway.stores.migrator import load, migrate
from tests.conftest import admin
from tests.support.servers import memory_folder, on_database

A, B = "00000000-0000-7000-8000-00000000000a", "00000000-0000-7000-8000-00000000000b"
OWN_ONLY = (
    "users",
    "api_keys",
    "meetings",
    "participants",
    "openai_usage",
    "rooms",
    "usage_hourly",
    "budgets",
    "credit_entries",
    "credit_balances",
    "usage_daily",
    "usage_daily_meetings",
    "usage_daily_units",
)
SERVICE_ONLY = (
    "stripe_windows", "stripe_carry", "stripe_meter_events", "usage_quarantine", "flush_counters",
    "upstream_objects", "open_items", "webhook_inbox", "daily_backfills",
    "accrued_decisions", "corrections", "correction_rows", "correction_proposals", "correction_decisions",
    "database_mark", "admin_events", "stripe_subscriptions", "stripe_invoices", "stripe_customers",
    "stripe_credit_grants", "stripe_credit_balances", "stripe_notices", "stripe_rechecks",
    "late_rows", "units_due", "books", "periods", "customers", "user_customers", "cost_centres",
    "billing_windows", "billing_carry", "credit_uses", "price_books",
    "stripe_attempts", "stripe_decisions", "outbox_totals",
    "usage_monthly", "summed_months",
    "plans", "plan_changes", "hosts", "audit_marks",
)  # fmt: skip

# Supabase's own set-up (Supabase's docs), as far as migrations meet it.
SUPABASE_ROLES = """
create role anon nologin noinherit;
create role authenticated nologin noinherit;
create role service_role nologin noinherit bypassrls;
create role authenticator noinherit login;
grant anon, authenticated, service_role to authenticator;
create role supabase_auth_admin noinherit createrole login;
create role migrator login createrole in role anon, authenticated, service_role;
"""
SUPABASE_DATABASE = """
create schema auth authorization supabase_auth_admin;
set role supabase_auth_admin;
create function auth.uid() returns uuid language sql stable as $$
  select coalesce(nullif(current_setting('request.jwt.claim.sub', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid $$;
comment on function auth.uid() is 'supabase';
reset role;
grant usage on schema auth to anon, authenticated, service_role, migrator;
grant usage on schema public to anon, authenticated, service_role;
alter default privileges for role migrator in schema public grant all on tables to anon, authenticated, service_role;
alter default privileges for role migrator in schema public grant all on functions to anon, authenticated, service_role;
alter default privileges for role migrator in schema public grant all on sequences to anon, authenticated, service_role;
"""
PROCESS_ROLES = ("gateway_proxy", "gateway_keeper", "gateway_worker", "gateway_reports")
ROLES = ("authenticator", "migrator", "supabase_auth_admin", "service_role", "authenticated", "anon", *PROCESS_ROLES)
BARE_AGAIN = (
    "drop database if exists app with (force)",
    "do $$ begin if to_regrole('migrator') is not null then drop owned by migrator; end if; end $$",
    *(f"drop role if exists {role}" for role in ROLES),
)
"""Statements after which nothing of a test is left."""


def two_users() -> str:
    statements = []
    for name, user in (("a", A), ("b", B)):
        call = user.replace("7000", "7001")
        statements.append(f"""
        insert into users (id, email) values ('{user}', '{name}@example.com');
        insert into api_keys (id, user_id, unkey_key_id) values ('{user}', '{user}', 'key_{name}');
        insert into meetings (id, user_id, room_name) values ('{user}', '{user}', 'room_{name}');
        insert into participants (meeting_id, name) values ('{user}', '{name}');
        insert into rooms (room_name, user_id) values ('room_{name}', '{user}');
        insert into budgets (user_id, period, limit_usd) values ('{user}', 'day', 1);
        insert into credit_entries (user_id, amount_usd) values ('{user}', 1);
        insert into usage_hourly (hour, user_id, model, endpoint, evidence)
          values (now(), '{user}', 'm', 'chat', 'void');
        insert into openai_usage
          (id, user_id, meeting_id, endpoint, model, evidence, cost_usd, billed_usd, started_at, completed_at)
          values ('{call}', '{user}', '{user}', 'chat', 'm', 'reported', 1, 1, now(), now());
        insert into usage_daily_units (day, user_id, model, evidence, unit, usd_per_unit)
          values (now(), '{user}', 'm', 'reported', 'input', 1);
        insert into upstream_objects (object_id, kind, user_id) values ('resp_{name}', 'response', '{user}');
        insert into stripe_carry (user_id, meter) values ('{user}', 'm');
        insert into usage_quarantine (raw, reason) values ('{name}', 'test');""")
    return "\n".join(statements)


@pytest.fixture(scope="module")
def bare_server() -> Iterator[str]:
    """A PostgreSQL on which no migration has made roles."""
    with ephemeral({"postgres"}, parent=memory_folder()) as running:
        yield running.database_url


@pytest.fixture
async def bare(bare_server: str) -> AsyncIterator[str]:
    """The superuser's DSN of that server; databases and roles that the test makes are gone afterwards."""
    yield bare_server
    await admin(bare_server, *BARE_AGAIN)


async def database_of(bare: str, role_options: str) -> str:
    await admin(bare, f"create role migrator login {role_options}", "create database app owner migrator")
    return on_database(bare, "app", "migrator")


async def supabase(bare: str) -> str:
    await admin(bare, SUPABASE_ROLES, "create database app owner migrator")
    await admin(on_database(bare, "app"), SUPABASE_DATABASE)
    return on_database(bare, "app", "migrator")


class As:
    """What one role sees: counts rows in a transaction that takes the role and its claims."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]", role: str, user_id: str | None) -> None:
        self.connection, self.role, self.user_id = connection, role, user_id

    async def run(self, query: str) -> list[asyncpg.Record]:
        async with self.connection.transaction():
            await self.connection.execute(f"set local role {self.role}")
            claims = "" if self.user_id is None else f'{{"sub": "{self.user_id}"}}'
            await self.connection.execute("select set_config('request.jwt.claims', $1, true)", claims)
            return await self.connection.fetch(query)

    async def count(self, table: str) -> int:
        return int((await self.run(f"select count(*) from public.{table}"))[0][0])


async def check_visibility(superuser_dsn: str) -> None:
    """The promise of row security: anon nothing, a user their own rows read only, the service everything."""
    connection = await asyncpg.connect(superuser_dsn)
    await connection.execute(two_users())
    anon, nobody = As(connection, "anon", None), As(connection, "authenticated", A.replace("a", "c"))
    signed_in, service = As(connection, "authenticated", A), As(connection, "service_role", None)
    for table in OWN_ONLY:
        column = "count(id)" if table in ("api_keys", "rooms") else "count(*)"
        assert (await signed_in.run(f"select {column} from {table}"))[0][0] == 1, table
        assert (await nobody.run(f"select {column} from {table}"))[0][0] == 0, table
    for table in OWN_ONLY + SERVICE_ONLY:
        assert await service.count(table) == await connection.fetchval(f"select count(*) from {table}"), table
        for statement in (f"select from {table}", f"truncate {table}", f"delete from {table}"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await anon.run(statement)
    for table in SERVICE_ONLY:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await signed_in.run(f"select from {table}")
    for statement in (
        "select unkey_key_id from api_keys",
        "select sealed from rooms",
        "update users set is_active = true",
        "insert into users (email) values ('c@example.com')",
        "delete from meetings",
        "truncate participants",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await signed_in.run(statement)
    assert (await signed_in.run("select user_id::text from openai_usage"))[0][0] == A
    assert (await service.run("update users set name = 'x' returning id"))[1:]
    for statement in ("update openai_usage set model = 'x'", "delete from openai_usage", "truncate openai_usage"):
        with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.RestrictViolationError)):
            await service.run(statement)
    await connection.close()


async def test_on_supabase_its_roles_and_functions_are_left_as_they_are(bare: str) -> None:
    dsn = await supabase(bare)
    assert (await migrate(dsn)).notices == []
    connection = await asyncpg.connect(on_database(bare, "app"))
    comment = await connection.fetchval("select obj_description('auth.uid()'::regprocedure)")
    bypass = await connection.fetchval("select rolbypassrls from pg_roles where rolname = 'service_role'")
    await connection.close()
    assert (comment, bypass) == ("supabase", True)
    await check_visibility(on_database(bare, "app"))


async def test_a_superuser_makes_what_supabase_would_have(bare: str) -> None:
    await admin(bare, "create database app")
    await migrate(on_database(bare, "app"))
    await check_visibility(on_database(bare, "app"))


async def test_a_login_that_may_make_roles_but_no_bypass_gets_policies_instead(bare: str) -> None:
    report = await migrate(await database_of(bare, "createrole"))
    assert any("service_role made without BYPASSRLS" in notice for notice in report.notices)
    await check_visibility(on_database(bare, "app"))


async def test_a_login_that_may_make_no_roles_goes_on_and_says_so(bare: str) -> None:
    dsn = await database_of(bare, "")
    report = await migrate(dsn)
    for role in ("anon", "authenticated", "service_role", *PROCESS_ROLES):
        assert any(f"role {role} is missing" in notice for notice in report.notices)
    owner = await asyncpg.connect(dsn)
    await owner.execute(two_users())  # the owner is not bound by row security
    assert await owner.fetchval("select count(*) from openai_usage") == 2
    # The roles come later: the policies' file may be run again by hand.
    made = ("anon", "authenticated", "service_role", *PROCESS_ROLES)
    await admin(bare, *(f"create role {role}" for role in made))
    for each in load():
        if each.name.endswith("_policies"):
            await owner.execute(each.sql)
            await owner.execute(each.sql)
    await owner.execute(
        "truncate participants; delete from rooms; delete from budgets; delete from usage_hourly;"
        "delete from stripe_carry; delete from upstream_objects; delete from usage_quarantine"
    )
    policies = await owner.fetchval("select count(*) from pg_policies where schemaname = 'public'")
    await owner.close()
    assert policies == len(OWN_ONLY) * 4 + len(SERVICE_ONLY) * 3  # the owner and the processes have one on each


async def test_the_owner_passes_by_a_policy_and_not_without_it(bare: str) -> None:
    await admin(bare, "create role anon", "create role authenticated", "create role service_role")
    dsn = await database_of(bare, "")
    await migrate(dsn)
    owner = await asyncpg.connect(dsn)
    try:
        await owner.execute(two_users())
        assert await owner.fetchval("select count(*) from openai_usage") == 2
        assert await owner.fetchval("select row_security_active('public.openai_usage')")
        await owner.execute("drop policy openai_usage_owner on openai_usage")
        assert await owner.fetchval("select count(*) from openai_usage") == 0
    finally:
        await owner.close()
