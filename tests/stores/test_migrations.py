"""The schema and the tool that brings it in, on a plain PostgreSQL and on Supabase's roles."""

import asyncio
import re

import asyncpg
import pytest

from gateway.stores.migrator import Migration, MigrationFailed, VersionTaken, compare, load, migrate, pending
from tests.conftest import admin
from tests.support.patience import ENDS_S, LOOK_S

TABLES_GIVEN = {"users", "api_keys", "meetings", "participants", "openai_usage", "rooms"}


async def rows(dsn: str, query: str, *arguments: object) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetch(query, *arguments)
    finally:
        await connection.close()


def test_files_are_named_as_supabase_names_them_and_come_in_order() -> None:
    known = load()
    assert (known[0].version, known[0].name) == ("20251202170734", "add_all_tables")
    assert [each.version for each in known] == sorted({each.version for each in known})
    for each in known:
        assert re.fullmatch(r"\d{14}", each.version)
        assert re.fullmatch(r"[a-z0-9_]+", each.name)


async def test_a_second_run_does_nothing(empty_database_url: str) -> None:
    first, second = await migrate(empty_database_url), await migrate(empty_database_url)
    assert (first.applied, first.already) == (load(), 0)
    assert (second.applied, second.already) == ([], len(load()))
    recorded = await rows(
        empty_database_url, "select version, name, statements from supabase_migrations.schema_migrations order by 1"
    )
    assert [(row[0], row[1], row[2][0]) for row in recorded] == [tuple(each) for each in load()]


async def test_several_at_once_apply_each_file_once(empty_database_url: str) -> None:
    reports = await asyncio.gather(*(migrate(empty_database_url) for _ in range(4)))
    applied = sorted(each for report in reports for each in report.applied)
    assert applied == load()


async def test_pending_before_and_after(empty_database_url: str) -> None:
    connection = await asyncpg.connect(empty_database_url)
    assert await pending(connection) == load()
    await migrate(empty_database_url)
    assert await pending(connection) == []
    await connection.close()


async def test_a_bad_file_is_rolled_back_whole_and_those_before_it_stay(empty_database_url: str) -> None:
    good = Migration("20300101000000", "good", "create table good (id int)")
    bad = Migration("20300101000001", "bad", "create table half (id int); select 1 / 0;")
    with pytest.raises(MigrationFailed, match="20300101000001_bad: division by zero"):
        await migrate(empty_database_url, known=[good, bad])
    tables = await rows(empty_database_url, "select tablename from pg_tables where schemaname = 'public'")
    assert [row[0] for row in tables] == ["good"]
    fixed = bad._replace(sql="create table half (id int)")
    assert (await migrate(empty_database_url, known=[good, fixed])).applied == [fixed]


INDEX = Migration("20300101000001", "index_it_concurrently", "-- Why.\ncreate index if not exists it_idx on it (n);\n")
IS_VALID = "select indisvalid from pg_index where indexrelid = 'it_idx'::regclass"


async def test_an_index_is_built_beside_writers(empty_database_url: str) -> None:
    """Its lock lets them in, while it waits for one that has begun before."""
    await migrate(empty_database_url, known=[Migration("20300101000000", "it", "create table it (n int)")])
    writer, other = [await asyncpg.connect(empty_database_url) for _ in range(2)]
    async with writer.transaction():
        await writer.execute("insert into it values (1)")
        migrating = asyncio.create_task(migrate(empty_database_url, known=[INDEX]))
        async with asyncio.timeout(ENDS_S):
            while not await other.fetchval("select count(*) from pg_stat_progress_create_index"):
                await asyncio.sleep(LOOK_S)
        await other.execute("set lock_timeout = '1s'")
        await other.execute("insert into it values (2)")
        await writer.execute("insert into it values (3)")
    assert (await migrating).applied == [INDEX]
    assert await other.fetchval(IS_VALID)
    recorded = await other.fetch(
        "select statements from supabase_migrations.schema_migrations where name = $1", INDEX.name
    )
    assert [row["statements"] for row in recorded] == [[INDEX.sql]]
    assert (await migrate(empty_database_url, known=[INDEX])).applied == []
    await writer.close()
    await other.close()


async def test_an_index_that_was_broken_off_is_built_anew(empty_database_url: str) -> None:
    connection = await asyncpg.connect(empty_database_url)
    await migrate(empty_database_url, known=[Migration("20300101000000", "it", "create table it (n int)")])
    await connection.execute("insert into it values (1), (1)")
    with pytest.raises(asyncpg.UniqueViolationError):
        await connection.execute("create unique index concurrently it_idx on it (n)")
    assert not await connection.fetchval(IS_VALID)
    reports = await asyncio.gather(*(migrate(empty_database_url, known=[INDEX]) for _ in range(3)))
    assert [each for report in reports for each in report.applied] == [INDEX]
    assert await connection.fetchval(IS_VALID)
    await connection.close()


def test_a_file_that_builds_an_index_does_nothing_else() -> None:
    """Written plainly, so that another tool, which has a transaction for each file, can apply it too."""
    found = [each for each in load() if each.name.endswith("_concurrently")]
    assert found
    for each in found:
        lines = [line for line in each.sql.splitlines() if not line.startswith("--")]
        assert re.fullmatch(r"create index if not exists \w+ on public\.\w+ [^;]+;", "\n".join(lines))


async def test_two_files_of_one_version_are_refused(empty_database_url: str) -> None:
    one = Migration("20300101000000", "one", "create table one (id int)")
    other = Migration("20300101000000", "other", "create table other (id int)")
    with pytest.raises(VersionTaken, match="20300101000000_one and 20300101000000_other have the same version"):
        await migrate(empty_database_url, known=[other, one])
    assert await rows(empty_database_url, "select 1 from pg_tables where schemaname = 'public'") == []


async def test_a_version_that_is_recorded_under_another_name_is_refused(empty_database_url: str) -> None:
    theirs = Migration("20300101000000", "theirs", "create table theirs (id int)")
    ours = theirs._replace(name="ours", sql="create table ours (id int)")
    await migrate(empty_database_url, known=[theirs])
    with pytest.raises(VersionTaken, match=r"has the migration 20300101000000_theirs where .* ours was not applied"):
        await migrate(empty_database_url, known=[ours])
    tables = await rows(empty_database_url, "select tablename from pg_tables where schemaname = 'public'")
    assert [row[0] for row in tables] == ["theirs"]


async def test_names_are_compared_where_there_is_one(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    change = "update supabase_migrations.schema_migrations set name = $1 where version = $2"
    await connection.execute(change, None, load()[-1].version)  # a tool that records versions only
    assert (await compare(connection)).behind == []
    await connection.execute(change, "something_else", load()[-1].version)
    with pytest.raises(VersionTaken, match="something_else"):
        await compare(connection)
    await connection.close()


async def test_row_security_is_on_everywhere_and_policies_name_a_role(database_url: str) -> None:
    tables = await rows(
        database_url,
        "select relname, relrowsecurity from pg_class"
        " where relnamespace = 'public'::regnamespace and relkind in ('r', 'p')",
    )
    assert {row[0] for row in tables} >= TABLES_GIVEN
    assert [row[0] for row in tables if not row[1]] == []
    policies = await rows(database_url, "select tablename, roles from pg_policies where schemaname = 'public'")
    assert {row[0] for row in policies if "service_role" in row[1]} == {row[0] for row in tables}
    assert not [row for row in policies if "public" in row[1] or "anon" in row[1]]


async def test_every_foreign_key_has_an_index_and_refuses_deletion(database_url: str) -> None:
    keys = await rows(
        database_url,
        """
        select c.conrelid::regclass::text as tab, a.attname, c.confdeltype::text as on_delete, exists (
          select from pg_index i where i.indrelid = c.conrelid and i.indkey[0] = c.conkey[1]) as indexed
        from pg_constraint c join pg_attribute a on a.attrelid = c.conrelid and a.attnum = c.conkey[1]
        where c.contype = 'f' and c.connamespace = 'public'::regnamespace
        """,
    )
    assert len(keys) > 15
    assert [(row["tab"], row["attname"]) for row in keys if not row["indexed"] or row["on_delete"] != "r"] == []


USER = "insert into users (id, email) values ('00000000-0000-7000-8000-00000000000a', 'a@example.com')"
CALL = {
    "id": "'00000000-0000-7000-8000-000000000001'",
    "user_id": "'00000000-0000-7000-8000-00000000000a'",
    "endpoint": "'chat'",
    "model": "'gpt-5-mini'",
    "evidence": "'reported'",
    "cost_usd": "0.001",
    "billed_usd": "0.001",
    "prompt_tokens": "10",
    "started_at": "'2026-11-22 10:00Z'",
    "completed_at": "'2026-11-22 10:01Z'",
}


def insert(**changes: str) -> str:
    call = {**CALL, **changes}
    return f"insert into openai_usage ({', '.join(call)}) values ({', '.join(call.values())})"


@pytest.mark.parametrize(
    ("changes", "constraint"),
    [
        ({"evidence": "'guessed'"}, "evidence_known"),
        ({"cost_usd": "null", "billed_usd": "null"}, "cost_null_iff_unpriced"),
        ({"evidence": "'unpriced'"}, "cost_null_iff_unpriced"),
        ({"billed_usd": "null"}, "billed_null_iff_cost"),
        ({"evidence": "'adjustment'"}, "adjustment_names_row"),
        ({"adjusts": "'00000000-0000-7000-8000-000000000002'"}, "adjustment_names_row"),
        ({"evidence": "'adjustment'", "adjusts": CALL["id"]}, "adjusts_another"),
        ({"evidence": "'void'"}, "void_costs_nothing"),
        ({"cost_usd": "-0.001"}, "only_adjustments_negative"),
        ({"prompt_tokens": "-1"}, "only_adjustments_negative"),
        ({"metadata": "'[]'"}, "json_shapes"),
        ({"cost_lines": "'{}'"}, "json_shapes"),
        ({"user_id": "'00000000-0000-7000-8000-00000000000b'"}, "user_id_fkey"),
    ],
)
async def test_the_ledger_refuses_what_makes_no_sense(
    database_url: str, changes: dict[str, str], constraint: str
) -> None:
    with pytest.raises(asyncpg.IntegrityConstraintViolationError) as refused:
        await admin(database_url, USER, insert(**changes))
    assert refused.value.as_dict()["constraint_name"] == f"openai_usage_{constraint}"


async def test_the_ledger_keeps_nano_dollars_and_dates_rows_by_completion(database_url: str) -> None:
    cost = "2345678901.123456789"
    await admin(
        database_url, USER, insert(cost_usd=cost, billed_usd=cost, completed_at="'2026-11-22 10:01:02.345678Z'")
    )
    (row,) = await rows(
        database_url, "select cost_usd::text, created_at = completed_at, inserted_at <> created_at from openai_usage"
    )
    assert tuple(row) == (cost, True, True)


@pytest.mark.parametrize(
    "change",
    [
        "update openai_usage set cost_usd = 0",
        "update openai_usage set cost_usd = 0 where false",
        "delete from openai_usage",
        "truncate openai_usage",
        "truncate users cascade",
        "insert into openai_usage select * from openai_usage on conflict (id) do update set model = 'x'",
    ],
)
@pytest.mark.parametrize("replication_role", ["origin", "replica"])
async def test_the_ledger_is_append_only_even_for_a_superuser(
    database_url: str, change: str, replication_role: str
) -> None:
    columns = ", ".join(CALL)
    change = change.replace("into openai_usage select *", f"into openai_usage ({columns}) select {columns}")
    await admin(database_url, USER, insert())
    with pytest.raises(asyncpg.RestrictViolationError, match="openai_usage is append-only"):
        await admin(database_url, f"set session_replication_role = {replication_role}", change)
    assert len(await rows(database_url, "select from openai_usage where cost_usd = 0.001")) == 1


async def test_an_upstream_answer_is_billed_once_and_users_stay(database_url: str) -> None:
    await admin(database_url, USER, insert(response_id="'resp_1'"))
    with pytest.raises(asyncpg.UniqueViolationError):
        await admin(database_url, insert(id="'00000000-0000-7000-8000-000000000002'", response_id="'resp_1'"))
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):  # which of them depends on the server's version
        await admin(database_url, "delete from users")


async def test_a_room_name_is_free_again_when_its_meeting_has_ended(database_url: str) -> None:
    meeting = "insert into meetings (user_id, room_name) values ('00000000-0000-7000-8000-00000000000a', 'room')"
    await admin(database_url, USER, meeting)
    with pytest.raises(asyncpg.UniqueViolationError):
        await admin(database_url, meeting)
    await admin(database_url, "update meetings set ended_at = now(), status = 'ended'", meeting)
    assert len(await rows(database_url, "select from meetings where room_name = 'room'")) == 2


async def test_an_email_is_one_user_in_any_case(database_url: str) -> None:
    with pytest.raises(asyncpg.UniqueViolationError):
        await admin(database_url, USER, "insert into users (email) values ('A@Example.com')")
