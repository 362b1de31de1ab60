"""Every command that changes something leaves an event in `admin_events`; a new command must say whether it does."""

import json
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import typer.main

from gateway.cli import build
from gateway.close.findings import ITEMS, NEVER_ACCEPTED
from gateway.ledger.store import Ledger
from gateway.sandbox import credentials
from gateway.stores.postgres import Pool
from tests.billing.test_held import waiting
from tests.corrections.corrections_at_work import propose
from tests.keys.unkey_at_work import KeySides, key_sides_at
from tests.meetings.daily_server import KEY, daily_server
from tests.quarantine.test_quarantine import arrives, stranger
from tests.rooms.rooms_at_work import BOTH, OLD
from tests.rooms.test_rotation import fill, spelled
from tests.support.invoke import gateway
from tests.support.stand_ins import sandbox_at
from tests.support.whole_gateway import DAILY_SECRET

__all__ = ["waiting"]

CHANGES: Final[dict[str, str]] = {
    "users create": "user create",
    "users disable": "user disable",
    "users enable": "user enable",
    "users set": "user set",
    "customers set": "customer set",
    "keys create": "key create",
    "keys set": "key set",
    "keys disable": "key disable",
    "keys enable": "key enable",
    "keys reroll": "key reroll",
    "keys revoke": "key revoke",
    "keys sync": "key sync",
    "budgets set": "budget set",
    "budgets end": "budget end",
    "credits add": "credit add",
    "plans set": "plan set",
    "plans end": "plan end",
    "billing again": "meter_event reissue",
    "billing decide": "meter_event write-off",
    "billing delivered": "meter_event delivered",
    "adjust": "correction book",
    "corrections approve": "correction approve",
    "corrections reject": "correction reject",
    "stripe setup": "stripe setup",
    "stripe sync": "stripe sync",
    "close month": "period close",
    "close reopen": "period reopen",
    "quarantine retry": "quarantine retry",
    "quarantine resolve": "quarantine resolve",
    "retention": "retention apply",
    "meetings assign": "meeting assign",
    "meetings retry": "meeting_events retry",
    "daily register": "webhook register",
    "daily backfill": "meetings backfill",
    "rooms rotate-key": "rooms rotate-key",
    "rooms import-sqlite": "rooms import-sqlite",
}
"""Command → subject and verb of its event."""
READS: Final = frozenset({
    "users list", "keys list", "keys show", "budgets list", "credits list", "log", "report usage", "report meetings",
    "corrections list", "corrections waiting", "customers list", "customers show", "billing unbilled",
    "plans list", "plans show", "plans explain",
    "audit", "quarantine list", "quarantine show", "billing held", "billing status", "close verify", "price",
    "meetings list",
    "daily status", "daily link", "rooms check", "rooms new-key", "rooms import-map", "doctor", "config show",
    "config check",
    "journal inspect", "hosts", "reconcile stripe", "stripe explain",
    "report accruals",
})  # fmt: skip
OTHERS: Final = {
    "up": "starts the gateway on this machine; the key that it makes is made as by `keys create`",
    "demo": "has a database of its own",
    "sandbox": "has no database",
    "serve": "starts the gateway",
    "worker": "starts a worker",
    "migrate": "what it has applied is in supabase_migrations.schema_migrations",
    "journal resend": "sends what the journal holds; it becomes rows as always",
    "journal adopt": "copies files on this host; what they hold becomes rows as always",
}
"""Commands that change something and leave no event, and why."""
ACCOUNTS: Final[dict[str, tuple[str, ...]]] = {
    "users create": ("zoe@example.com", "--name", "Zoe"),
    "users disable": ("zoe@example.com",),
    "users enable": ("zoe@example.com",),
    "users set": ("zoe@example.com", "--name", "Zoë"),
    "customers set": ("cus_1", "--name", "Zoë Ltd", "--mode", "prepaid"),
    "keys create": ("--user", "yan@example.com", "--create-user"),
    "keys set": ("key_ann", "--rpm", "5"),
    "keys disable": ("key_ann",),
    "keys enable": ("key_ann",),
    "keys reroll": ("key_ann",),
    "keys revoke": ("key_bob",),
    "keys sync": ("--repair",),
    "budgets set": ("--user", "zoe@example.com", "--limit", "5"),
    "budgets end": ("{budget}",),
    "credits add": ("zoe@example.com", "20"),
    "plans set": ("standard", "--markup", "1.5", "--yes"),
    "plans end": ("standard", "--yes"),
}
"""What is typed for some commands, in this order."""
ACCEPTED: Final = tuple(f"--accept={item}=a test" for item in ITEMS if item not in NEVER_ACCEPTED)
"""Whatever stands against closing a month."""
URL: Final = "https://gateway.example.com/webhooks/daily"


def every_command() -> Iterator[str]:
    program: Any = typer.main.get_command(build([]))
    for name, command in program.commands.items():
        inner = getattr(command, "commands", None)
        yield from (name,) if inner is None else (f"{name} {each}" for each in inner)


def test_every_command_says_whether_it_changes_something() -> None:
    kinds = [set(CHANGES), set(READS), set(OTHERS)]
    assert set(every_command()) == set().union(*kinds)
    assert sum(map(len, kinds)) == len(set().union(*kinds))


@pytest.fixture
async def sides(database_url: str, ledger: Ledger, pool: Pool) -> AsyncIterator[KeySides]:
    async with key_sides_at(database_url, ledger, pool) as made:
        for name in ("ann", "bob", "cid"):
            await made.key(name, meta={"plan": 1})
        made.kept("key_cid").name = "another name"
        yield made


@pytest.mark.long
async def test_every_command_that_changes_something_leaves_an_event(
    sides: KeySides, waiting: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.meetings.daily_api.PACE_S", 0.0)
    pool = sides.pool
    for _ in range(2):
        await stranger(sides.ledger)
    ids = [row["id"] for row in await pool.fetch("select id from usage_quarantine")]
    await arrives(pool)
    meeting = await pool.fetchval("insert into meetings (room_name) values ('r') returning id::text")
    await fill(pool, 2, OLD)
    with sqlite3.connect(file := tmp_path / "rooms.db") as source:
        source.execute("create table rooms (id integer primary key, room_name text)")
        source.execute("insert into rooms (room_name) values ('old')")
    source.close()
    corrected, proposals = await propose_two(sides, key_file := tmp_path / "approver.key")
    async with daily_server() as server, sandbox_at(time.time) as sandbox:
        sides.env |= vendors(server.base_url, sandbox.stripe_base_url)
        lines: dict[str, tuple[str, ...]] = {
            **ACCOUNTS,
            "billing again": (waiting[0], "--force"),
            "billing delivered": (waiting[1], "--force"),
            "billing decide": ("write-off", waiting[2], "--why", "a test", "--yes"),
            "adjust": (corrected, "--cost", "3", "--why", "a test", "--yes"),
            "corrections approve": (proposals[0], "--key-file", str(key_file)),
            "corrections reject": (proposals[1], "--why", "a test"),
            "stripe setup": (),
            "stripe sync": (),
            "close month": ("2026-09", "--output", str(tmp_path / "pack"), *ACCEPTED),
            "close reopen": ("2026-09", "--why", "a test"),
            "quarantine retry": (str(ids[0]),),
            "quarantine resolve": (str(ids[1]), "--reason", "a test"),
            "retention": ("--participants-after", "0", "--apply"),
            "meetings assign": (meeting, "--user", "zoe@example.com"),
            "meetings retry": (),
            "daily register": ("--url", URL),
            "daily backfill": ("--from", "yesterday"),
            "rooms rotate-key": (),
            "rooms import-sqlite": (str(file),),
        }
        assert lines.keys() == CHANGES.keys()
        missing = [told for command in lines if (told := await left_no_event(sides, command, lines[command]))]
    assert missing == []
    written = [row["event"] for row in await pool.fetch("select admin_events::text as event from admin_events")]
    assert [event for event in written if "canary" in event.lower() or DAILY_SECRET in event or KEY in event] == []


async def propose_two(sides: KeySides, key_file: Path) -> tuple[str, list[str]]:
    """A row to correct, and two corrections of another one that wait for whoever has the key in this file."""
    rows = [row["id"] for row in await sides.pool.fetch("select id::text from openai_usage where adjusts is null")]
    await sides.key("approver", permissions={"corrections.approve"})
    key_file.write_text("sk_approver_canary_012")
    return rows[0], [await propose(sides.env["DATABASE_URL"], rows[1], cost_nano) for cost_nano in (7, 8)]


def vendors(daily_url: str, stripe_url: str) -> dict[str, str]:
    """The settings of those whom commands ask."""
    return {
        "DAILY_API_KEY": KEY,
        "DAILY_BASE_URL": daily_url,
        "DAILY_WEBHOOK_SECRET": DAILY_SECRET,
        "ROOMS_KEYS": spelled(BOTH),
        "GATEWAY_OPERATOR": "Ada",
        "STRIPE_SECRET_KEY": credentials.STRIPE_SECRET_KEY,
        "STRIPE_BASE_URL": stripe_url,
    }


async def left_no_event(sides: KeySides, command: str, arguments: tuple[str, ...]) -> str | None:
    """What is wrong with the events of a command that is run now; None where all is well."""
    pool = sides.pool
    last = await pool.fetchval("select coalesce(max(id), 0) from admin_events")
    budget = str(await pool.fetchval("select id from budgets limit 1"))
    given = [each.replace("{budget}", budget) for each in arguments]
    done = await gateway(sides.env, *command.split(), *given)
    assert (done.status, done.error) == (0, ""), (command, done)
    rows = await pool.fetch("select * from admin_events where id > $1 order by id", last)
    named = [row for row in rows if f"{row['subject']} {row['verb']}" == CHANGES[command] and row["actor"] == "Ada"]
    outcomes = {row["intent_id"] for row in named if row["phase"] == "done"}
    without = [row["id"] for row in named if row["phase"] == "intent" and row["id"] not in outcomes]
    if not outcomes or without:
        return f"{command}: {[dict(row) for row in rows]}"
    if command == "keys create":
        secret = done.out.split("\n")[2].strip()
        assert len(secret) > 10
        assert not any(secret in json.dumps(dict(row), default=str) for row in rows)
        assert {"user create", "key create"} == {f"{row['subject']} {row['verb']}" for row in rows}
    return None


async def test_a_command_that_leaves_none_is_noticed(sides: KeySides, monkeypatch: pytest.MonkeyPatch) -> None:
    sides.env |= {"GATEWAY_OPERATOR": "Ada"}
    monkeypatch.setitem(CHANGES, "users list", "user list")
    assert await left_no_event(sides, "users list", ()) is not None
    await sides.pool.execute("insert into users (email) values ('x@example.com')")
    monkeypatch.setitem(CHANGES, "users disable", "user enable")
    assert await left_no_event(sides, "users disable", ("x@example.com",)) is not None
