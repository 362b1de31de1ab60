"""Events of Daily.co become the same meetings and people in any order, however often they come."""

from random import Random
from typing import Any

import pytest

from gateway.stores.postgres import Pool
from gateway.stores.webhook_inbox import WebhookEvent
from tests.meetings.daily_lives import (
    T0,
    ended,
    joined,
    left,
    outcome,
    recording,
    rest,
    started,
    told,
    transcript,
    wipe,
)

USER = "00000000-0000-7000-8000-00000000000a"


def one_life() -> list[WebhookEvent]:
    """A meeting with a host who is a user, a guest who comes twice, a recording and a transcript."""
    host: dict[str, Any] = {"name": "Ann", "owner": True, "user": USER}
    return [
        started("m1", "room", 0),
        joined("s1", "room", 0.01, **host),
        joined("s2", "room", 2, name="Bob"),
        left("s2", "room", 2, 10, name="Bob B."),
        joined("s3", "room", 14, name="Bob"),
        left("s1", "room", 0.01, 30, **host),
        left("s3", "room", 14, 16.5, name="Bob"),
        ended("m1", "room", 0, 31),
        recording("r1", "room", 1),
        transcript("t1", "m1"),
    ]


def same_room_five_times() -> list[WebhookEvent]:
    """Sessions close behind each other: some nobody saw ending, one told about by REST only, ends that come late."""
    events: list[WebhookEvent] = []
    for number in range(5):
        begin = number * 20.0
        meeting = f"m{number}"
        if number != 3:
            events.append(started(meeting, "room", begin))
        if number in (0, 2):
            events.append(ended(meeting, "room", begin, begin + 19.9))  # the next one begins 6 s later
        events.append(joined(f"s{number}", "room", begin - 0.05 if number == 4 else begin + 0.02, owner=number == 1))
        if number != 2:
            events.append(left(f"s{number}", "room", begin - 0.05 if number == 4 else begin + 0.02, 5))
        events.append(recording(f"r{number}", "room", begin + 1))
    events.append(rest("m3", "room", 60, 15, [("s3", 60, 5), ("s3b", 61, 2)]))
    events.append(rest("m0", "room", 0, 19, [("s0", 0, 5)]))
    return events


LIVES = {"one meeting": one_life, "the same room five times": same_room_five_times}


def shuffled(events: list[WebhookEvent], seed: int) -> list[WebhookEvent]:
    dice = Random(seed)
    order = [*events, *dice.sample(events, len(events) // 2)]
    dice.shuffle(order)
    return order


@pytest.mark.parametrize(
    ("life", "orders"),
    [
        ("one meeting", 12),
        ("the same room five times", 6),
        pytest.param("one meeting", 200, marks=pytest.mark.long),
        pytest.param("the same room five times", 200, marks=pytest.mark.long),
    ],
)
async def test_no_order_changes_the_outcome(pool: Pool, life: str, orders: int) -> None:
    await pool.execute("insert into users (id, email) values ($1, 'ann@example.com')", USER)
    events = LIVES[life]()
    await told(pool, events)
    expected = await outcome(pool)
    for seed in range(orders):
        await wipe(pool)
        await told(pool, shuffled(events, seed))
        assert await outcome(pool) == expected, seed


async def test_one_meeting(pool: Pool) -> None:
    await pool.execute("insert into users (id, email) values ($1, 'ann@example.com')", USER)
    await told(pool, one_life())
    (meeting,) = await pool.fetch("select * from meetings")
    assert (meeting["status"], str(meeting["user_id"]), meeting["duration_seconds"]) == ("ended", USER, 31 * 60)
    assert (meeting["started_at"], meeting["recording_url"]) == (T0, "daily-recording:r1")
    assert meeting["transcript_url"] == "daily-transcript:t1"
    people = await pool.fetch("select name, role, duration_seconds from participants order by joined_at")
    assert [tuple(row.values()) for row in people] == [
        ("Ann", "host", 1800),
        ("Bob B.", "guest", 600),
        ("Bob", "guest", 990),
    ]
    assert await pool.fetchval("select count(*) from webhook_inbox where processed_at is null") == 0


async def test_five_sessions_in_one_room(pool: Pool) -> None:
    await told(pool, same_room_five_times())
    meetings = await pool.fetch("select * from meetings order by started_at")
    assert [row["daily_meeting_id"] for row in meetings] == [f"m{number}" for number in range(5)]
    minutes = [None if row["ended_at"] is None else (row["ended_at"] - T0).total_seconds() / 60 for row in meetings]
    # Seen by a webhook, ended by the next, seen, told by REST, still on.
    assert minutes == [19.9, 40, 59.9, 75, None]
    assert [row["status"] for row in meetings] == ["ended"] * 4 + ["in_progress"]
    people = await pool.fetch(
        "select m.daily_meeting_id, p.daily_participant_id from participants p join meetings m on m.id = p.meeting_id"
        " order by 2"
    )
    assert [tuple(row.values()) for row in people] == [
        ("m0", "s0"), ("m1", "s1"), ("m2", "s2"), ("m3", "s3"), ("m3", "s3b"), ("m4", "s4"),
    ]  # fmt: skip
    assert [row["recording_url"] for row in meetings] == [f"daily-recording:r{number}" for number in range(5)]
    joins = {row["daily_participant_id"]: row for row in await pool.fetch("select * from participants")}
    assert joins["s0"]["name"] == "s0"  # the webhook's, not REST's
    assert joins["s2"]["left_at"] == meetings[2]["ended_at"]  # nobody saw them leave: with the meeting
    assert joins["s3b"]["name"] == "by rest"
