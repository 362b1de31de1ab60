"""What PostgreSQL's errors mean: an outage is waited out; a statement that never runs ends the loop and says why."""

import asyncio
from random import Random
from uuid import uuid4

import pytest
import structlog

from gateway.accounts.store import Accounts
from gateway.kit.errors import DependencyDown, StatementRefused
from gateway.kit.loops import LoopFailed, Loops
from gateway.kit.metrics import Status
from gateway.ledger.rows import LedgerEntry
from gateway.ledger.store import Ledger
from gateway.meetings.backfill_cursors import BackfillCursors
from gateway.meetings.inbox import Inbox
from gateway.processes.admin import Board
from gateway.stores.postgres import Pool, Table, open_pool, translating_errors
from gateway.stores.webhook_inbox import WebhookEvent
from tests.conftest import METER, WINDOW_S, admin
from tests.support.events import call, linked, new_id

RANDOM = Random(7)
ENDS_S = 60.0
"""Only ever waited for in full when something is broken."""


class Anything(Table):
    """Sends what a test wants."""

    async def send(self, query: str, *arguments: object) -> None:
        await self._rows(query, *arguments)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("select * from public.nowhere", r'"public.nowhere" does not exist \(not migrated\? run `gateway migrate`\)'),
        ("select nothing from public.users", r"UndefinedColumnError: .*gateway migrate"),
        ("select * from nowhere.users", r"gateway migrate"),
        ("select no_such_function()", r"UndefinedFunctionError: .*gateway migrate"),
        ("selec 1", r"PostgresSyntaxError: syntax error"),
        ("select 1 from public.users for update of pg_class", r"postgres: \w+: "),
    ],
)
async def test_a_statement_that_will_never_run_is_no_outage(pool: Pool, query: str, said: str) -> None:
    with pytest.raises(StatementRefused, match=said):
        await Anything(pool).send(query)


async def test_a_privilege_that_is_missing_is_named(database_url: str) -> None:
    role = f"weak_{uuid4().hex}"
    await admin(database_url, f"create role {role} login")
    pool = await open_pool(database_url, connections_max=1)
    try:
        async with pool.acquire() as connection:
            await connection.execute(f"set role {role}")
        with pytest.raises(StatementRefused, match=r"permission denied .*lacks a privilege: see docs/schema\.md"):
            await Accounts(pool).find("a@example.com")
    finally:
        await pool.close()
        await admin(database_url, f"drop role {role}")


@pytest.mark.parametrize(
    "query",
    [
        "select pg_sleep(60)",  # the timer of statements
        "select pg_terminate_backend(pg_backend_pid())",
        "select 1 / (select 0 from public.users limit 1) from pg_cancel_backend(pg_backend_pid())",
    ],
)
async def test_what_ends_by_itself_is_an_outage(database_url: str, query: str) -> None:
    pool = await open_pool(database_url, connections_max=1, statement_timeout_s=0.5)
    try:
        with pytest.raises(DependencyDown) as raised:
            await Anything(pool).send(query)
        assert not isinstance(raised.value, StatementRefused)
    finally:
        pool.terminate()


async def test_a_row_is_never_quoted(pool: Pool) -> None:
    for query, arguments in (
        ("select 'sekret'::int", ()),
        ("select $1::int", ("sekret",)),
        ("insert into public.users (id, email) select null, 'sekret'", ()),
    ):
        with pytest.raises(DependencyDown) as raised:
            await Anything(pool).send(query, *arguments)
        assert "sekret" not in str(raised.value)


async def test_a_statement_behind_a_live_change_of_the_schema_is_no_bug(pool: Pool) -> None:
    """asyncpg has prepared it for the old table; it prepares it anew the next time."""
    await pool.execute("create table public.grows (a int)")
    async with pool.acquire() as connection:
        await connection.fetch("select * from public.grows")
        await admin_through(pool, "alter table public.grows add column b int")
        with pytest.raises(DependencyDown) as raised, translating_errors():
            async with connection.transaction():
                await connection.fetch("select * from public.grows")
        assert not isinstance(raised.value, StatementRefused)
        assert await connection.fetch("select * from public.grows") == []


async def admin_through(pool: Pool, statement: str) -> None:
    async with pool.acquire() as another:
        await another.execute(statement)


async def test_a_loop_ends_by_it_and_says_why(pool: Pool) -> None:
    await pool.execute("alter table public.daily_backfills drop column cursor")
    loops = Loops(uniform=lambda _low, _high: 1.0)
    loops.every("walk", lambda: BackfillCursors(pool).find("all"), every_s=ENDS_S)
    with structlog.testing.capture_logs() as lines:
        async with asyncio.timeout(ENDS_S):
            with pytest.raises(LoopFailed, match="walk"):
                async with loops:
                    await loops.run_until(asyncio.Event())
    (line,) = lines
    assert (line["event"], line["log_level"]) == ("loop failed, process ends", "error")
    assert "gateway migrate" in line["detail"]
    assert loops.failure is not None
    assert "gateway migrate" in loops.failure


def test_the_parent_keeps_why_a_process_ended_until_it_is_back() -> None:
    board = Board(monotonic=lambda: 0.0)
    board.mark_started("worker", 1)
    board.heard("worker", Status("not migrated"))
    board.mark_ended("worker")
    assert "not migrated" in board.readiness()[1]["processes"]["worker"]["problem"]
    board.mark_started("worker", 2)
    assert board.readiness()[1]["processes"]["worker"]["problem"] == "it is starting: not migrated"
    board.heard("worker", Status())
    assert board.readiness()[0]


async def test_a_batch_that_the_schema_refuses_is_not_in_quarantine(pool: Pool) -> None:
    ledger = Ledger(pool, meter=METER, window_s=WINDOW_S)
    user, key = await linked(ledger, "ann")
    await pool.execute("alter table public.openai_usage rename column model to modell")
    with pytest.raises(StatementRefused, match="gateway migrate"):
        await ledger.insert_batch([LedgerEntry.of(call(user, new_id(RANDOM), api_key_id=key))])
    assert await pool.fetchval("select count(*) from public.usage_quarantine") == 0


async def test_the_inbox_is_no_event_of_its_own(pool: Pool) -> None:
    """A statement that takes no event must not count as an event that failed, over and over."""
    await Inbox(pool).store([WebhookEvent("evt_1", "x", None, b"{}")])
    await pool.execute("alter table public.webhook_inbox rename column next_attempt_at to later")
    with pytest.raises(StatementRefused):
        async with Inbox(pool).next_event():
            raise AssertionError("nothing is taken")
