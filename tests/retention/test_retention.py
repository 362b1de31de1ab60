"""`gateway retention`: what is due, what goes, what stays: names gone for good, the ledger byte for byte."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from gateway.accounts.store import Accounts
from gateway.config.settings import RetentionSettings
from gateway.ledger.rows import LedgerEntry
from gateway.ledger.store import Ledger
from gateway.meetings.backfill_cursors import BackfillCursors
from gateway.retention.retention import limits_of, take, take_daily
from gateway.retention.store import Retention
from gateway.stores.postgres import Pool
from tests.meetings.daily_lives import T0, ended, joined, left, started, told
from tests.support.events import call
from tests.support.invoke import gateway

NAME, EMAIL, SECRET = "CANARY Ann", "canary@example.com", "CANARY-SEALED"


@pytest.fixture
async def filled(pool: Pool, ledger: Ledger) -> dict[str, Any]:
    """A meeting that ended long ago and one that is on, both with people, usage, and a room."""
    user = await Accounts(ledger.pool).create_user("owner@example.com")
    await told(
        pool,
        [
            started("old", "a", -60 * 24 * 100),
            joined("s1", "a", -60 * 24 * 100, name=NAME, user=EMAIL),
            left("s1", "a", -60 * 24 * 100, 5, name=NAME, user=EMAIL),
            ended("old", "a", -60 * 24 * 100, -60 * 24 * 100 + 9),
        ],
    )
    await pool.execute('update participants set email = $1, metadata = metadata || \'{"note": "CANARY"}\'', EMAIL)
    soon = (datetime.now(UTC) - T0) / timedelta(minutes=1)
    await told(pool, [started("new", "b", soon), joined("s2", "b", soon, name="Bob")])
    meeting = await pool.fetchval("select id::text from meetings where daily_meeting_id = 'old'")
    await ledger.insert_batch([LedgerEntry.of(call(user, str(uuid4()), meeting_id=meeting))])
    for room, days in (("a", 100), ("b", 1)):
        await pool.execute(
            "insert into rooms (room_name, sealed, sealed_key_id, ended_at) values ($1, $2, 'k', $3)",
            room, SECRET.encode(), datetime.now(UTC) - timedelta(days=days),
        )  # fmt: skip
    await pool.execute(
        "update webhook_inbox set processed_at = now() - interval '960 hours' where event_id like '%old%'"
    )
    return {"meeting": meeting, "user": user}


async def ledger_of(pool: Pool) -> list[tuple[Any, ...]]:
    """All of the ledger, and every amount beside it."""
    rows = []
    for table in ("openai_usage", "usage_hourly", "usage_daily", "billing_windows"):
        rows += [tuple(row.values()) for row in await pool.fetch(f"select to_jsonb(t)::text from {table} t order by 1")]
    return rows


ALL = ("--participants-after", "90", "--inbox-after", "30", "--rooms-after", "60")


async def test_a_dry_run_changes_nothing(pool: Pool, filled: dict[str, Any], database_url: str) -> None:
    env = {"DATABASE_URL": database_url}
    before = [await pool.fetch(f"select * from {table}") for table in ("participants", "webhook_inbox", "rooms")]
    done = await gateway(env, "retention", *ALL, "--json")
    kinds = json.loads(done.out)["kinds"]
    assert {kind: one["due"] for kind, one in kinds.items()} == {"participants": 1, "inbox": 2, "rooms": 1}
    assert kinds["participants"]["months"][0]["month"] == "2026-08"
    table = await gateway(env, "retention", *ALL)
    assert "Nothing was changed" in table.out
    assert "2026-08" in table.out
    assert before == [
        await pool.fetch(f"select * from {table}") for table in ("participants", "webhook_inbox", "rooms")
    ]
    for secret in (NAME, EMAIL, SECRET):
        assert secret not in done.out + table.out
    refused = await gateway(env, "retention")
    assert (refused.status, "--participants-after" in refused.error) == (1, True)


async def test_names_go_and_amounts_stay(pool: Pool, filled: dict[str, Any], database_url: str) -> None:
    env, amounts = {"DATABASE_URL": database_url}, await ledger_of(pool)
    done = await gateway(env, "retention", *ALL, "--apply", "--json")
    taken = {kind: one["taken"] for kind, one in json.loads(done.out)["kinds"].items()}
    assert taken == {"participants": 1, "inbox": 2, "rooms": 1}
    people = await pool.fetch("select * from participants order by daily_participant_id")
    assert (people[0]["name"], people[0]["email"], people[0]["anonymised_at"] is None) == (None, None, False)
    assert (people[0]["duration_seconds"], people[0]["role"]) == (300, "guest")  # what is billed by the minute stays
    assert people[1]["name"] == "Bob"
    dump = ""
    for table in ("participants", "meetings", "webhook_inbox"):
        dump += "".join(row[0] for row in await pool.fetch(f"select to_jsonb(t)::text from {table} t"))
    for secret in ("CANARY", EMAIL):
        assert secret not in dump
        assert secret.encode().hex() not in dump
    assert [row["sealed"] is None for row in await pool.fetch("select sealed from rooms order by room_name")] == [
        True,
        False,
    ]
    assert await ledger_of(pool) == amounts
    again = await gateway(env, "retention", *ALL, "--apply", "--json")
    assert sum(one["taken"] for one in json.loads(again.out)["kinds"].values()) == 0


async def test_nobody_gets_a_name_back(pool: Pool, filled: dict[str, Any]) -> None:
    limits = limits_of(RetentionSettings(participants_days=90))
    assert await take(Retention(pool), limits, datetime.now(UTC), lambda *_: None) == {"participants": 1}
    late = left("s1", "a", -60 * 24 * 100, 6, name=NAME, user=EMAIL)._replace(id="late")
    await told(pool, [late, started("old", "a", -60 * 24 * 100)])
    await pool.execute(
        "update participants set name = 'CANARY', anonymised_at = null where daily_participant_id = 's1'"
    )
    (person,) = await pool.fetch("select * from participants where daily_participant_id = 's1'")
    assert (person["name"], person["email"], person["anonymised_at"] is None) == (None, None, False)
    assert (person["duration_seconds"], "CANARY" in person["metadata"], EMAIL in person["metadata"]) == (
        360,
        False,
        False,
    )
    # A session that comes to light between would have them taken up anew; what told about them is gone: they stay.
    await told(pool, [started("between", "a", -60 * 24 * 100 - 1)])
    assert await pool.fetchval("select count(*) from participants where daily_participant_id = 's1'") == 1


async def test_two_at_once_and_a_worker_s_turn(pool: Pool, filled: dict[str, Any]) -> None:
    limits, now = limits_of(RetentionSettings(participants_days=90, rooms_days=60)), datetime.now(UTC)
    both = await asyncio.gather(*(take(Retention(pool), limits, now, lambda *_: None) for _ in range(2)))
    assert [sum(one[kind] for one in both) for kind in ("participants", "rooms")] == [1, 1]
    await pool.execute(
        "insert into rooms (room_name, sealed, sealed_key_id, ended_at) values ('c', 'x', 'k', $1)",
        T0 - timedelta(days=99),
    )
    await take_daily(Retention(pool), BackfillCursors(pool), limits, now)
    assert await pool.fetchval("select sealed is null from rooms where room_name = 'c'")
    assert not await BackfillCursors(pool).lease("retention", 60)  # it was today's
