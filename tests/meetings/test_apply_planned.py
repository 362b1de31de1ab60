"""Meetings that the platform has planned, whose they are, workers side by side, and what an operator does by hand."""

import asyncio
import json
from itertools import permutations
from uuid import uuid4

import pytest

from gateway.ledger.rows import LedgerEntry
from gateway.ledger.store import Ledger
from gateway.meetings.inbox import Inbox
from gateway.meetings.listing import MeetingListing
from gateway.stores.postgres import Pool, open_pool
from gateway.stores.webhook_inbox import WebhookEvent
from tests.meetings.daily_lives import T0, ended, joined, outcome, started, told, wipe, work
from tests.meetings.test_apply import same_room_five_times, shuffled
from tests.support.events import call
from tests.support.invoke import gateway

ANN, BOB = "00000000-0000-7000-8000-00000000000a", "00000000-0000-7000-8000-00000000000b"


@pytest.fixture
async def users(pool: Pool) -> None:
    for user, name in ((ANN, "ann"), (BOB, "bob")):
        await pool.execute("insert into users (id, email) values ($1, $2)", user, f"{name}@example.com")


async def plan(pool: Pool, room: str, *, status: str = "scheduled", user: str = ANN) -> str:
    made: str = await pool.fetchval(
        "insert into meetings (user_id, room_name, status, scheduled_at, created_at, metadata)"
        " values ($1, $2, $3, $4, $4, '{\"from\": \"the platform\"}') returning id::text", user, room, status, T0,
    )  # fmt: skip
    return made


async def test_the_first_session_is_the_planned_meeting_in_any_order(pool: Pool, users: None) -> None:
    first = [started("m1", "room", 1), ended("m1", "room", 1, 10), joined("s1", "room", 1)]
    second = [started("m2", "room", 20), joined("s2", "room", 21)]
    outcomes = set()
    for order in [*permutations([*first[:2], *second])][::3]:
        await wipe(pool)
        planned = await plan(pool, "room")
        await told(pool, [*order, first[2]])
        rows = await pool.fetch("select id::text, daily_meeting_id, user_id::text, metadata from meetings order by 2")
        assert [row["daily_meeting_id"] for row in rows] == ["m1", "m2"]
        assert (rows[0]["id"], rows[0]["user_id"], rows[1]["user_id"]) == (planned, ANN, None)
        assert json.loads(rows[0]["metadata"])["from"] == "the platform"
        outcomes.add(repr(await outcome(pool)))
    assert len(outcomes) == 1


async def test_what_is_called_off_or_long_past_is_not_the_planned_one(pool: Pool, users: None) -> None:
    await plan(pool, "cancelled", status="cancelled")
    await told(pool, [started("m1", "cancelled", 0)])
    planned = await plan(pool, "later")
    await told(pool, [started("m2", "later", -500), ended("m2", "later", -500, -490)])
    rows = await pool.fetch(
        "select id::text, daily_meeting_id, status from meetings order by daily_meeting_id nulls last"
    )
    assert [(row["daily_meeting_id"], row["status"]) for row in rows] == [
        ("m1", "in_progress"), ("m2", "ended"), (None, "cancelled"), (None, "scheduled"),
    ]  # fmt: skip
    assert rows[3]["id"] == planned


async def test_the_platform_s_own_row_with_daily_s_id_keeps_its_owner(pool: Pool, users: None) -> None:
    await pool.execute(
        "insert into meetings (user_id, room_name, daily_meeting_id, status, started_at) values ($1, 'r', 'm', $2, $3)",
        ANN, "in_progress", T0,
    )  # fmt: skip
    await told(pool, [joined("s1", "r", 0.1, owner=True, user=BOB), started("m", "r", 0.05), ended("m", "r", 0.05, 3)])
    (row,) = await pool.fetch("select user_id::text, status, duration_seconds from meetings")
    assert tuple(row.values()) == (ANN, "ended", 177)


async def owner(pool: Pool, meeting: str) -> str | None:
    found: str | None = await pool.fetchval("select user_id::text from meetings where daily_meeting_id = $1", meeting)
    return found


async def test_whose_it_is(pool: Pool, users: None, ledger: Ledger) -> None:
    await told(pool, [started("m1", "a", 0), joined("s1", "a", 1, owner=True, user=str(uuid4()))])
    assert await owner(pool, "m1") is None  # a host who is not a user
    await told(pool, [joined("s2", "a", 3, owner=True, user=BOB), joined("s3", "a", 2, owner=True, user=ANN.upper())])
    assert await owner(pool, "m1") == ANN  # the first of those who are
    await pool.execute("insert into rooms (room_name, user_id, created_at) values ('a', $1, $2)", BOB, T0)
    await told(pool, [joined("s4", "a", 4)])
    assert await owner(pool, "m1") == BOB  # the room's record comes first
    (meeting,) = await pool.fetch("select id::text from meetings")
    event = call(BOB, str(uuid4()), meeting_id=meeting["id"])
    await ledger.insert_batch([LedgerEntry.of(event)])
    await pool.execute("update rooms set user_id = $1", ANN)
    await told(pool, [joined("s5", "a", 5)])
    assert await owner(pool, "m1") == BOB  # usage belongs to it: it keeps whom it has
    await told(pool, [started("m2", "b", 0)])
    await pool.execute("insert into rooms (room_name, user_id, created_at) values ('b', $1, $2)", ANN, T0)
    await pool.execute("update meetings set started_at = now() where daily_meeting_id = 'm2'")
    assert await MeetingListing(pool).claim() == 1  # a record that came later
    assert await owner(pool, "m2") == ANN


async def test_workers_side_by_side(pool: Pool, users: None, database_url: str) -> None:
    """They take turns at a room, wake each other's events, and never wait for each other in a circle."""
    many = await open_pool(database_url, connections_max=6)
    events = same_room_five_times()
    await told(pool, events)
    expected = await outcome(pool)

    async def drain() -> None:
        worker = work(many)
        while await worker.step_once():
            pass

    for seed in range(10):
        await wipe(pool)
        await Inbox(pool).store(shuffled(events, seed))
        for _ in range(3):
            await asyncio.gather(*(drain() for _ in range(5)))
        assert await outcome(pool) == expected, seed
    await many.close()


async def test_by_hand(pool: Pool, users: None, database_url: str) -> None:
    env = {"DATABASE_URL": database_url}
    bad = WebhookEvent("bad", "meeting.started", None, b'{"type":"meeting.started","id":"bad","payload":{}}')
    await told(pool, [started("m1", "[red]room", 0), joined("lost", "elsewhere", 0), bad])
    listed = await gateway(env, "meetings", "list", "--unassigned")
    assert "[red]room" in listed.out
    assert "(nobody)" in listed.out
    assert "1 events wait for their meeting, 1 have failed (1 for good)" in " ".join(listed.out.split())
    plain = json.loads((await gateway(env, "meetings", "list", "--json")).out)
    meeting = plain["meetings"][0]["id"]
    assert (plain["events"]["waiting"], plain["events"]["failed"]) == (1, 1)
    assert (await gateway(env, "meetings", "assign", meeting, "--user", "ann@example.com")).status == 0
    await told(pool, [joined("s1", "[red]room", 1, owner=True, user=BOB)])
    assert await owner(pool, "m1") == ANN
    for arguments, says in (
        (("m1", "--user", "ann@example.com"), "a UUID"),
        ((str(uuid4()), "--user", "ann@example.com"), "there is no meeting"),
        ((meeting, "--user", "nobody@example.com"), "there is no user"),
    ):
        done = await gateway(env, "meetings", "assign", *arguments)
        assert (done.status, says in done.error) == (1, True), done.error
    assert "1 event is queued" in (await gateway(env, "meetings", "retry")).out
