"""Row security as a table: which role may do what to which table, on plain PostgreSQL and on Supabase's roles.

Every table in `public` has its line; one without fails. What is expected is stated, never taken from the database.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import pytest

from gateway.stores.migrator import migrate
from tests.conftest import admin
from tests.stores.test_roles import BARE_AGAIN, A, B, bare_server, database_of, supabase, two_users
from tests.support.servers import on_database

__all__ = ["bare_server"]
if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = Any

TEMPLATE: Final = "app_template"
OPERATIONS: Final = ("select", "insert", "update", "delete", "truncate", "references", "trigger")
NOTHING: Final = frozenset[str]()
READS: Final = frozenset({"select"})
WRITES: Final = frozenset({"select", "insert", "update", "delete"})
APPENDS: Final = frozenset({"select", "insert"})
CHANGES: Final = frozenset({"select", "insert", "update"})
# Per table: what a signed-in user may do (to their own rows), and the backend (to all).
TABLES: Final = {
    "users": (READS, WRITES),
    "api_keys": (READS, WRITES),
    "meetings": (READS, WRITES),
    "participants": (READS, WRITES),
    "openai_usage": (READS, READS),
    "rooms": (READS, WRITES),
    "usage_hourly": (READS, WRITES),
    "budgets": (READS, WRITES),
    "credit_entries": (READS, APPENDS),
    "stripe_windows": (NOTHING, WRITES),
    "stripe_carry": (NOTHING, WRITES),
    "stripe_meter_events": (NOTHING, WRITES),
    "stripe_attempts": (NOTHING, APPENDS),
    "stripe_decisions": (NOTHING, APPENDS),
    "outbox_totals": (NOTHING, WRITES),
    "usage_monthly": (NOTHING, CHANGES),
    "summed_months": (NOTHING, APPENDS),
    "stripe_subscriptions": (NOTHING, WRITES),
    "stripe_invoices": (NOTHING, WRITES),
    "stripe_customers": (NOTHING, WRITES),
    "stripe_credit_grants": (NOTHING, WRITES),
    "stripe_credit_balances": (NOTHING, CHANGES),
    "stripe_notices": (NOTHING, WRITES),
    "stripe_rechecks": (NOTHING, WRITES),
    "usage_quarantine": (NOTHING, WRITES),
    "flush_counters": (NOTHING, WRITES),
    "upstream_objects": (NOTHING, WRITES),
    "open_items": (NOTHING, WRITES),
    "webhook_inbox": (NOTHING, WRITES),
    "daily_backfills": (NOTHING, WRITES),
    "database_mark": (NOTHING, APPENDS),
    "admin_events": (NOTHING, APPENDS),
    "books": (NOTHING, CHANGES),
    "periods": (NOTHING, CHANGES),
    "customers": (NOTHING, CHANGES),
    "user_customers": (NOTHING, CHANGES),
    "cost_centres": (NOTHING, WRITES),
    "billing_windows": (NOTHING, CHANGES),
    "billing_carry": (NOTHING, CHANGES),
    "credit_balances": (READS, CHANGES),
    "credit_uses": (NOTHING, CHANGES),
    "late_rows": (NOTHING, CHANGES),
    "units_due": (NOTHING, WRITES),
    "usage_daily": (READS, CHANGES),
    "usage_daily_meetings": (READS, CHANGES),
    "usage_daily_units": (READS, CHANGES),
    "price_books": (NOTHING, APPENDS),
    "accrued_decisions": (NOTHING, APPENDS),
    "corrections": (NOTHING, APPENDS),
    "correction_rows": (NOTHING, APPENDS),
    "correction_proposals": (NOTHING, APPENDS),
    "correction_decisions": (NOTHING, APPENDS),
    "plans": (NOTHING, APPENDS),
    "hosts": (NOTHING, WRITES),
    "audit_marks": (NOTHING, APPENDS),
    "plan_changes": (NOTHING, frozenset({"select", "update"})),
}
HIDDEN_COLUMNS: Final = {
    "api_keys": {"unkey_key_id", "enabled_at"},
    "rooms": {"data", "sealed", "sealed_key_id", "source_id"},
    # What a call cost us, and so our margin; and what the operator notes.
    "users": {"metadata"},
    "openai_usage": {"cost_usd", "cost_lines", "metadata", "plan_version", "books_version"},
    "usage_hourly": {"cost_usd"},
    "usage_daily": {"cost_nano"},
    "usage_daily_meetings": {"cost_nano"},
    "usage_daily_units": {"usd_per_unit", "usd"},
}
OWNERS: Final = {"users": "id", "participants": "meeting_id"}
"""The column that says whose a row is, where it is not `user_id`."""
CLAIMS: Final = {
    "A": f'{{"sub": "{A}", "role": "authenticated"}}',
    "B": f'{{"sub": "{B}"}}',
    "somebody else": '{"sub": "00000000-0000-7000-8000-00000000000c"}',
    "no sub": "{}",
    "empty": "",
}
COMMANDS: Final = {
    "select": "select count(*) from public.{table}",
    "insert": "insert into public.{table} default values",
    "update": "update public.{table} set {column} = {column} where false",
    "delete": "delete from public.{table} where false",
    "truncate": "truncate public.{table}",
    "references": "alter table public.{table} disable row level security",  # never anybody's but the owner's
    "trigger": "create trigger t before insert on public.{table} execute function public.refuse_change()",
}


@pytest.fixture(scope="module", params=["plain", "supabase", "owner without any right"])
def kind(request: pytest.FixtureRequest, bare_server: str) -> Iterator[str]:
    """The server with the roles of this kind, and a migrated database with two users, to be cloned."""
    try:
        asyncio.run(_prepare(bare_server, request.param))
        yield bare_server
    finally:
        asyncio.run(admin(bare_server, f"drop database if exists {TEMPLATE}", *BARE_AGAIN))


async def _prepare(server: str, kind: str) -> None:
    if kind == "plain":
        await admin(server, "create database app")
        dsn = on_database(server, "app")
    elif kind == "supabase":
        dsn = await supabase(server)
    else:
        await admin(server, "create role anon", "create role authenticated", "create role service_role bypassrls")
        dsn = await database_of(server, "")
    await migrate(dsn)
    await admin(on_database(server, "app"), two_users())
    await admin(server, f"alter database app rename to {TEMPLATE}")


@pytest.fixture
async def superuser(kind: str) -> AsyncIterator[Connection]:
    """A clone of that database, as the superuser."""
    await admin(kind, f"create database app template {TEMPLATE} strategy file_copy")
    connection = await asyncpg.connect(on_database(kind, "app"))
    yield connection
    await connection.close()
    await admin(kind, "drop database app with (force)")


async def allowed(connection: Connection, role: str, claims: str, statement: str) -> bool:
    """Whether a statement gets past the permissions; whatever it does is undone."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(f"set local role {role}")
        await connection.execute("select set_config('request.jwt.claims', $1, true)", claims)
        await connection.execute(statement)
    except asyncpg.InsufficientPrivilegeError:
        return False
    except asyncpg.PostgresError:
        return True  # permitted, and refused for what it is: a NULL, a foreign key, an append-only ledger
    else:
        return True
    finally:
        await transaction.rollback()


async def test_every_table_has_its_line_and_row_security(superuser: Connection) -> None:
    tables = {row["tablename"] for row in await superuser.fetch("select * from pg_tables where schemaname = 'public'")}
    assert tables == set(TABLES)
    state = "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r' and not {flag}"
    for flag in ("relrowsecurity", "relforcerowsecurity"):
        assert await superuser.fetch(state.format(flag=flag)) == []
    views = """select relname from pg_class where relnamespace = 'public'::regnamespace and (relkind = 'm'
      or relkind = 'v' and not coalesce('security_invoker=true' = any(reloptions), false))"""
    assert await superuser.fetch(views) == []  # a view without it shows everybody what its owner sees
    unpinned = """
      select proname from pg_proc where pronamespace = 'public'::regnamespace
        and (prosecdef or not coalesce(proconfig::text, '') like '%search_path=%')"""
    assert await superuser.fetch(unpinned) == []


async def test_the_matrix(superuser: Connection) -> None:
    wrong = []
    # Where the worker has no role of its own, it works as service_role.
    has_worker = await superuser.fetchval("select to_regrole('gateway_worker') is not null")
    for table, (signed_in, service) in (TABLES | ({} if has_worker else {"openai_usage": (READS, APPENDS)})).items():
        column = await superuser.fetchval(
            "select column_name from information_schema.columns where table_schema = 'public' and table_name = $1"
            " and is_generated = 'NEVER' and is_identity = 'NO' order by ordinal_position limit 1", table,
        )  # fmt: skip
        for role, claims, may in (
            ("anon", "", NOTHING),
            ("anon", CLAIMS["A"], NOTHING),
            ("authenticated", CLAIMS["A"], signed_in),
            ("authenticated", "", signed_in),
            ("service_role", "", service),
        ):
            for operation in OPERATIONS:
                statement = COMMANDS[operation].format(table=table, column=column)
                if operation == "select" and role == "authenticated" and table in HIDDEN_COLUMNS:
                    statement = f"select count({OWNERS.get(table, 'user_id')}) from public.{table}"
                if await allowed(superuser, role, claims, statement) != (operation in may):
                    wrong.append((role, table, operation))
    assert wrong == []


@pytest.mark.parametrize(("who", "rows"), [("A", 1), ("B", 1), ("somebody else", 0), ("no sub", 0), ("empty", 0)])
async def test_each_sees_their_own_rows_only(superuser: Connection, who: str, rows: int) -> None:
    for table, (signed_in, _) in TABLES.items():
        if not signed_in:
            continue
        async with superuser.transaction():
            await superuser.execute("set local role authenticated")
            await superuser.execute("select set_config('request.jwt.claims', $1, true)", CLAIMS[who])
            owner = OWNERS.get(table, "user_id")
            found = [str(row[0]) for row in await superuser.fetch(f"select {owner} from public.{table}")]
            assert found == ([{"A": A, "B": B}[who]] if rows else []), table
            if table not in HIDDEN_COLUMNS:
                copied = await superuser.copy_from_query(f"select * from public.{table}", output=_sink)
                assert copied == f"COPY {rows}", table


async def _sink(_data: bytes) -> None:
    """Where a copy goes."""


async def test_hidden_columns_stay_hidden(superuser: Connection) -> None:
    for table, hidden in HIDDEN_COLUMNS.items():
        for column in hidden:
            assert not await allowed(superuser, "authenticated", CLAIMS["A"], f"select {column} from public.{table}")
            asked = f"select count(*) from public.{table} where {column} is not null"
            assert not await allowed(superuser, "authenticated", CLAIMS["A"], asked)
        assert not await allowed(superuser, "authenticated", CLAIMS["A"], f"select * from public.{table}")
        columns = {
            row["column_name"]
            for row in await superuser.fetch(
                "select column_name from information_schema.columns where table_schema = 'public'"
                " and table_name = $1", table,
            )
        }  # fmt: skip
        shown = ", ".join(sorted(columns - hidden))
        assert await allowed(superuser, "authenticated", CLAIMS["A"], f"select {shown} from public.{table}"), table


@pytest.mark.parametrize("claims", ["not json", '{"sub": "no-uuid"}', '["x"]', '{"sub": 7}'])
async def test_claims_that_make_no_sense_show_nothing(superuser: Connection, claims: str) -> None:
    """An error or nothing: never a row."""
    for table in ("users", "openai_usage", "participants"):
        try:
            async with superuser.transaction():
                await superuser.execute("set local role authenticated")
                await superuser.execute("select set_config('request.jwt.claims', $1, true)", claims)
                assert await superuser.fetchval(f"select count(*) from public.{table}") == 0
        except asyncpg.DataError:
            pass


async def test_a_setting_does_not_outlive_its_transaction(superuser: Connection) -> None:
    async with superuser.transaction():
        await superuser.execute("set local role authenticated")
        await superuser.execute("select set_config('request.jwt.claims', $1, true)", CLAIMS["A"])
        assert await superuser.fetchval("select count(*) from public.meetings") == 1
    async with superuser.transaction():  # the next one on the pooled connection has said nothing
        await superuser.execute("set local role authenticated")
        assert await superuser.fetchval("select count(*) from public.meetings") == 0


async def test_a_view_shows_no_more_than_its_reader_may_see(superuser: Connection) -> None:
    for option, rows in (("security_invoker = true", 1), ("security_invoker = false", 2)):
        async with superuser.transaction():
            await superuser.execute(f"create view public.v with ({option}) as select id from public.openai_usage")
            await superuser.execute("grant select on public.v to authenticated")
            await superuser.execute("set local role authenticated")
            await superuser.execute("select set_config('request.jwt.claims', $1, true)", CLAIMS["A"])
            assert await superuser.fetchval("select count(*) from public.v") == rows  # why the first is asked for
            await superuser.execute("reset role")
            await superuser.execute("drop view public.v")


async def test_what_policies_ask_for_has_an_index(superuser: Connection) -> None:
    """`user_id = (select auth.uid())` must find its rows by an index, and the function must be asked once."""
    policies = await superuser.fetch("select tablename, policyname, qual from pg_policies where schemaname = 'public'")
    own = [row for row in policies if "auth.uid()" in (row["qual"] or "")]
    assert {row["tablename"] for row in own} == {table for table, (signed_in, _) in TABLES.items() if signed_in}
    for row in own:
        assert "SELECT auth.uid()" in row["qual"], row["policyname"]
        column = OWNERS.get(row["tablename"], "user_id")
        first = """
          select count(*) from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
          where i.indrelid = $1::text::regclass and a.attname = $2 and i.indpred is null"""
        assert await superuser.fetchval(first, f"public.{row['tablename']}", column) >= 1, row["tablename"]


async def test_a_login_of_the_gateway_s_own_need_not_own_anything(superuser: Connection, kind: str) -> None:
    """`grant service_role to gateway`: it can do everyday work, and can neither change the ledger nor the schema."""
    await superuser.execute("create role gateway_app login")
    try:
        await superuser.execute("grant service_role to gateway_app")
        app = await asyncpg.connect(on_database(kind, "app", "gateway_app"))
        try:
            for table in TABLES:
                counts = [await one.fetchval(f"select count(*) from public.{table}") for one in (app, superuser)]
                assert counts[0] == counts[1], table
            assert (await app.execute("update meetings set status = 'cancelled'")).endswith(" 2")
            for statement in (
                "update openai_usage set model = 'x'",
                "delete from openai_usage",
                "alter table openai_usage disable trigger all",
                "drop table participants",
                "truncate rooms",
                "create table public.mine (id int)",
            ):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await app.execute(statement)
        finally:
            await app.close()
    finally:
        await superuser.execute("drop role gateway_app")
