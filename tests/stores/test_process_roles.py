"""Each kind of process may do its own work in PostgreSQL and nothing else: the grants, stated here once more.

That their statements are allowed is shown by every test that uses `running`, whose processes have these logins.
"""

import asyncio
from collections.abc import AsyncIterator
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import aiohttp
import asyncpg
import pytest

from gateway.access import identities
from gateway.billing import freezing_sql, outbox_sql, refiling_sql
from gateway.billing.mirror import balances
from gateway.billing.mirror import store as mirror_store
from gateway.billing.webhooks import inbox as stripe_inbox
from gateway.billing.webhooks import notice_store
from gateway.config.database_logins import PROCESSES, setting, with_own_login
from gateway.config.settings import Settings
from gateway.ledger import open_items
from gateway.ledger import sql as ledger
from gateway.limits import spending
from gateway.meetings import backfill_cursors, call_meetings, event_store, inbox_transaction, listing
from gateway.openai import objects
from gateway.processes.handed_settings import decode_settings, encode_settings, without_secrets
from gateway.reports import accruals, usage_sql
from gateway.reports import store as reports
from gateway.retention import store as retention
from gateway.rooms import store as rooms
from gateway.stores import database_mark, migrator, postgres_health, webhook_inbox
from gateway.stores.postgres import open_pool
from gateway.stores.process_roles import find_missing, make_logins, role_of
from gateway.trail import store as trail
from gateway.trail.actor import Actor
from tests.support.gateway import Stack
from tests.support.servers import on_database
from tests.support.whole_gateway import own_logins

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = Any

READS: Final = frozenset({"select"})
APPENDS: Final = frozenset({"select", "insert"})
CHANGES: Final = frozenset({"select", "insert", "update"})
NOTHING: Final = frozenset[str]()
# What a process may do to a table or to some of its columns; of a table that is not named, nothing.
TABLES: Final[dict[str, dict[str, AbstractSet[str]]]] = {
    "proxy": {
        "users": READS, "api_keys": READS, "budgets": READS, "credit_entries": READS, "usage_hourly": READS,
        "openai_usage": READS, "upstream_objects": READS, "meetings": READS, "rooms": CHANGES,
        "webhook_inbox": APPENDS, "admin_events": APPENDS, "credit_balances": READS, "usage_daily": READS,
        "plans": READS, "plan_changes": READS, "user_customers": READS,
        "customers": READS, "stripe_credit_balances": READS, "books": READS, "stripe_meter_events": READS,
        "billing_windows": READS, "billing_carry": READS, "usage_monthly": READS, "summed_months": READS,
    },
    "keeper": {
        "openai_usage": READS, "usage_quarantine": READS, "plans": READS, "plan_changes": READS,
        "user_customers": READS, "hosts": CHANGES,
    },
    "worker": {
        "openai_usage": APPENDS, "usage_hourly": CHANGES, "users": READS, "api_keys": {"select", "update"},
        "stripe_windows": CHANGES, "stripe_carry": CHANGES, "stripe_meter_events": CHANGES,
        "upstream_objects": APPENDS, "flush_counters": CHANGES, "usage_quarantine": APPENDS, "open_items": CHANGES,
        "budgets": READS, "credit_entries": READS, "meetings": CHANGES, "participants": {*CHANGES, "delete"},
        "rooms": {"select", "update"}, "webhook_inbox": CHANGES, "daily_backfills": CHANGES,
        "database_mark": APPENDS,
        "stripe_subscriptions": CHANGES, "stripe_invoices": CHANGES, "stripe_customers": CHANGES,
        "stripe_credit_grants": CHANGES, "stripe_credit_balances": CHANGES,
        "stripe_notices": CHANGES, "stripe_rechecks": CHANGES,
        "late_rows": APPENDS, "units_due": {*CHANGES, "delete"}, "books": {"select", "update"}, "periods": CHANGES,
        "customers": READS, "user_customers": READS,
        "billing_windows": CHANGES, "billing_carry": CHANGES, "credit_balances": {"select", "update"},
        "credit_uses": CHANGES, "usage_daily": CHANGES, "usage_daily_meetings": CHANGES, "usage_daily_units": CHANGES,
        "stripe_attempts": APPENDS, "stripe_decisions": READS, "outbox_totals": CHANGES,
        "price_books": APPENDS, "usage_monthly": CHANGES, "summed_months": APPENDS,
        "plans": READS, "plan_changes": READS, "hosts": CHANGES,
    },
    "reports": {
        "openai_usage": READS, "usage_hourly": READS, "users": READS, "api_keys": READS, "meetings": READS,
        "participants": READS, "budgets": READS, "credit_entries": READS,
        "accrued_decisions": READS,
        "corrections": READS, "correction_rows": READS, "correction_proposals": READS, "correction_decisions": READS,
        "stripe_meter_events": READS, "stripe_windows": READS,
        "stripe_subscriptions": READS, "stripe_invoices": READS, "stripe_customers": READS,
        "stripe_credit_grants": READS, "stripe_credit_balances": READS,
        "stripe_notices": READS, "stripe_rechecks": READS,
        "late_rows": READS, "units_due": READS, "books": READS, "periods": READS, "customers": READS,
        "user_customers": READS, "cost_centres": READS,
        "billing_windows": READS, "billing_carry": READS, "credit_balances": READS, "credit_uses": READS,
        "usage_daily": READS, "usage_daily_meetings": READS, "usage_daily_units": READS,
        "stripe_attempts": READS, "stripe_decisions": READS, "outbox_totals": READS,
        "price_books": READS,
        "plans": READS, "plan_changes": READS, "hosts": READS, "audit_marks": READS,
    },
}  # fmt: skip
REFUSED: Final = (
    ("proxy", "update openai_usage set model = 'x'"),
    ("proxy", "insert into openai_usage (id) values (gen_random_uuid())"),
    ("proxy", "select usage from openai_usage"),
    ("proxy", "select email from users"),
    ("proxy", "update users set is_active = true"),
    ("proxy", "update api_keys set is_active = true"),
    ("proxy", "insert into credit_entries (user_id, amount_usd) values (gen_random_uuid(), 1)"),
    ("proxy", "select body from webhook_inbox"),
    ("proxy", "delete from rooms"),
    ("proxy", "select actor from admin_events"),
    (
        "proxy",
        "insert into admin_events (actor_kind, actor, verb, subject) values ('operator', 'Ada', 'create', 'credit')",
    ),
    ("worker", "insert into admin_events (actor_kind, actor, verb, subject) values ('key', 'k', 'x', 'y')"),
    ("proxy", "select from stripe_windows"),
    ("proxy", "select identifier from stripe_meter_events"),
    ("proxy", "select tax_note from customers"),
    ("keeper", "select user_id from openai_usage"),
    ("keeper", "delete from usage_quarantine"),
    ("worker", "update openai_usage set model = 'x'"),
    ("worker", "update users set stripe_customer_id = 'cus_x'"),
    ("worker", "update api_keys set is_active = true"),
    ("worker", "update plans set valid_to = now()"),
    ("worker", "update budgets set limit_usd = 1"),
    ("worker", "insert into credit_entries (user_id, amount_usd) values (gen_random_uuid(), 1)"),
    ("worker", "select data from rooms"),
    ("reports", "select unkey_key_id from api_keys"),
    ("reports", "select email from participants"),
    ("reports", "select from rooms"),
    *((process, "create table public.mine (id int)") for process in PROCESSES),
    *((process, "set role service_role") for process in PROCESSES),
    *((process, "alter table openai_usage disable trigger all") for process in PROCESSES),
)
# What a role may do to a table, or to a column of it.
_MAY: Final = """
select c.relname, lower(r.privilege) as privilege
from pg_class c, unnest(array['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) as r(privilege)
where c.relnamespace = 'public'::regnamespace and c.relkind = 'r' and has_any_column_privilege($1, c.oid, r.privilege)
union all
select c.relname, lower(r.privilege) from pg_class c, unnest(array['DELETE', 'TRUNCATE', 'TRIGGER']) as r(privilege)
where c.relnamespace = 'public'::regnamespace and c.relkind = 'r' and has_table_privilege($1, c.oid, r.privilege)
"""

# Which kinds of process are connected to this database, and as whom.
_CONNECTED: Final = """
select distinct substring(application_name from '^pailflow-gateway ([a-z]+)') as process, usename
from pg_stat_activity where datname = current_database() and application_name like 'pailflow-gateway %'
"""


@pytest.fixture
async def superuser(database_url: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.mark.parametrize("process", PROCESSES)
async def test_the_grants_are_these_and_no_others(superuser: Connection, process: str) -> None:
    found: dict[str, set[str]] = {}
    for row in await superuser.fetch(_MAY, role_of(process)):
        found.setdefault(row["relname"], set()).add(row["privilege"])
    assert found == TABLES[process]


async def test_what_is_not_its_work_is_refused_to_a_process(database_url: str) -> None:
    logins = await make_logins(database_url, PROCESSES)
    for process, statement in REFUSED:
        connection = await asyncpg.connect(logins[process])
        try:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
        finally:
            await connection.close()


async def test_row_security_hides_no_rows_from_a_process(superuser: Connection, database_url: str) -> None:
    await superuser.execute("insert into users (email) values ('ann@example.com')")
    await superuser.execute("insert into usage_quarantine (event_id, raw, reason) values ('e', 'x', 'a test')")
    logins = await make_logins(database_url, PROCESSES)
    for process in PROCESSES:
        connection = await asyncpg.connect(logins[process])
        try:
            if "users" in TABLES[process]:
                assert await connection.fetchval("select count(id) from users") == 1
            else:
                assert await connection.fetchval("select count(event_id) from usage_quarantine") == 1
        finally:
            await connection.close()


async def test_a_proxy_records_who_reads_a_room(superuser: Connection, database_url: str) -> None:
    logins = await make_logins(database_url, PROCESSES)
    pool = await open_pool(logins["proxy"], connections_max=1)
    try:
        await trail.Trail(pool).write(Actor("key", "key_1"), trail.Deed("read_sensitive", "room", "r"))
    finally:
        await pool.close()
    assert await superuser.fetchval("select actor from admin_events") == "key_1"


async def test_the_policies_file_may_be_run_again(superuser: Connection) -> None:
    (sql,) = await superuser.fetchrow(
        "select statements[1] from supabase_migrations.schema_migrations where name = 'add_process_roles_policies'"
    ) or ("",)
    await superuser.execute(sql)
    policies = await superuser.fetchval("select count(*) from pg_policies where policyname like '%\\_processes'")
    assert policies == await superuser.fetchval("select count(*) from pg_tables where schemaname = 'public'")


async def test_the_children_of_serve_have_these_logins(running: Stack) -> None:
    made = await asyncio.to_thread(running.make_key, f"{uuid4().hex}@example.com")  # nobody has its owner in memory
    body = {"model": "text-embedding-3-small", "input": "x"}
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {made['key']}"}) as session,
        session.post(f"{running.base_url}/embeddings", json=body) as response,
    ):
        assert response.status == 200
    wanted = {(process, f"gateway_{process}_login") for process in ("proxy", "keeper", "worker")}
    connection = await asyncpg.connect(running.env["DATABASE_URL"])
    try:
        async with asyncio.timeout(120):
            while not wanted <= {tuple(row) for row in await connection.fetch(_CONNECTED)}:
                await asyncio.sleep(0.05)  # the keeper asks for the row a little later
    finally:
        await connection.close()


async def test_no_role_of_a_process_can_log_in(superuser: Connection) -> None:
    assert await find_missing(superuser, PROCESSES) == []
    assert await find_missing(superuser, ["proxy", "no such process"]) == ["gateway_no such process"]
    able = "select rolname from pg_roles where rolname = any($1::text[]) and (rolcanlogin or rolsuper or rolbypassrls)"
    assert await superuser.fetch(able, [role_of(process) for process in PROCESSES]) == []


async def test_a_child_gets_its_own_login_and_no_other(database_url: str) -> None:
    logins = await own_logins(database_url)
    env = {"DATABASE_URL": on_database(database_url, "other"), "DATABASE_URL_FILE": "", "HOME": "/", **logins}
    settings = Settings.of({name: value for name, value in env.items() if value})
    for process in PROCESSES:
        own = logins[setting(process).upper()]
        if process != "reports":  # a command, not a process of `serve`
            handed = decode_settings(encode_settings(settings, process)).model_dump()
            assert handed["database_url"].get_secret_value() == own
            assert [handed[setting(each)] for each in PROCESSES] == [None] * len(PROCESSES)
        used = with_own_login(settings, process).database_url
        assert used is not None
        assert used.get_secret_value() == own
    shared = {"DATABASE_URL": database_url}
    assert decode_settings(encode_settings(Settings.of(shared), "proxy")) == Settings.of(shared)
    assert decode_settings(encode_settings(settings, "sandbox")).database_url is None
    assert without_secrets(env) == {"HOME": "/"}


STATEMENTS: Final = (
    ("proxy", identities, None),
    ("proxy", objects, None),
    ("proxy", call_meetings, None),
    ("proxy", spending, ("_SPENT", "_USED", "_UNINVOICED")),
    ("proxy", rooms, ("_GET", "_LIST", "_INSERT", "_UPDATE", "_EXPIRE", "_USER", "_MEETING")),
    ("proxy", webhook_inbox, ("_STORE",)),
    ("proxy", trail, ("_WRITE",)),
    ("keeper", ledger, ("CONFIRMED",)),
    ("worker", ledger, None),
    ("worker", open_items, None),
    ("worker", outbox_sql, None),
    ("worker", freezing_sql, None),
    ("worker", refiling_sql, None),
    ("worker", spending, ("_SPENT", "_USED", "_UNINVOICED", "_IS_CURRENT", "_BUDGETS")),
    ("worker", rooms, ("_EXPIRE_DUE",)),
    ("worker", webhook_inbox, None),
    ("worker", stripe_inbox, None),
    ("worker", notice_store, None),
    ("worker", mirror_store, None),
    ("worker", balances, None),
    ("worker", inbox_transaction, None),
    ("worker", event_store, None),
    ("worker", listing, ("_CLAIM",)),
    ("worker", backfill_cursors, None),
    ("worker", retention, ("_DUE", "_TAKE")),
    ("worker", database_mark, ("_IS_THERE", "_READ", "_SET")),
    ("worker", postgres_health, ("_WRITE",)),
    ("worker", migrator, ("RECORDS_EXIST", "RECORDED")),
    ("reports", reports, None),
    ("reports", usage_sql, ("BY_DAY", "BY_HOUR")),
    ("reports", accruals, None),
)
"""Process, module, and those of its constants that this process sends; None: all that are statements."""


async def test_every_statement_of_a_process_is_allowed_to_it(database_url: str) -> None:
    """Asked of PostgreSQL's planner, which checks the rights and runs nothing."""
    logins = await make_logins(database_url, PROCESSES)
    wrong, tried = [], 0
    for process in PROCESSES:
        connection = await asyncpg.connect(logins[process])
        mine = [(module, names or tuple(vars(module))) for owner, module, names in STATEMENTS if owner == process]
        constants = [(f"{module.__name__}.{name}", getattr(module, name)) for module, names in mine for name in names]
        for constant, statement in [(name, text) for name, value in constants for text in _texts(value)]:
            tried += 1
            try:
                await connection.execute(f"explain (generic_plan) {statement}")
            except asyncpg.PostgresError as error:
                wrong.append((process, constant, str(error)))
        await connection.close()
    assert wrong == []
    assert tried > 80


def _texts(value: object) -> list[str]:
    """The statements that a constant holds."""
    values = value.values() if isinstance(value, dict) else [value]
    begins = ("select", "insert", "update", "delete", "with")
    return [each for each in values if isinstance(each, str) and each.strip().startswith(begins) and len(each) > 30]
