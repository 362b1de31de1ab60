"""From Daily.co to the ledger on a running gateway: registered, told out of order, filled in, and calls attributed."""

import asyncio
import json
import time
from typing import Any

import openai
import pytest

from tests.meetings.test_webhooks import rows, until_done
from tests.support.gateway import Stack
from tests.support.whole_gateway import row_of


def act(running: Stack, what: str, **said: Any) -> Any:
    return running.control("daily", "POST", f"/{what}", said)


def ask(running: Stack, meeting: str) -> str:
    """A call of the SDK's that names this meeting; its event id."""
    with openai.OpenAI(base_url=running.base_url, api_key=running.key, max_retries=0) as client:
        answer = client.with_raw_response.chat.completions.create(
            model="gpt-4o-mini",
            messages=[{"role": "user", "content": "x"}],
            extra_headers={"X-Meeting-Id": meeting},
        )
    event_id: str = answer.headers["x-gateway-event-id"]
    return event_id


@pytest.mark.long
async def test_a_meeting_and_its_calls(running: Stack) -> None:
    url = f"http://127.0.0.1:{running.port}/webhooks/daily"
    done = await asyncio.to_thread(running.command, "daily", "register", "--url", url, "--json")
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout)["retry_type"] == "exponential"
    act(running, "faults", duplicate=True, hold=True, milliseconds=True, rewritten=True)
    act(running, "speed", factor=100)
    now = time.time()
    meeting = act(running, "start", room="interview-7", at=now)["meeting_id"]
    host = act(running, "join", meeting_id=meeting, name="Host", user_id=running.user_id, owner=True, at=now + 0.5)[
        "session_id"
    ]
    act(running, "join", meeting_id=meeting, name="Guest", at=now + 1)
    act(running, "record", meeting_id=meeting, at=now + 2)
    assert act(running, "release", seed=5)["released"] == 8
    for prefix in (meeting, host):
        await until_done(running, prefix, 1)
    (row,) = await rows(running, "select * from meetings where daily_meeting_id = $1", meeting)
    assert (row["status"], str(row["user_id"]), row["room_name"]) == ("in_progress", running.user_id, "interview-7")
    answer = await asyncio.to_thread(ask, running, "interview-7")
    assert (await row_of(running, answer))["meeting_id"] == row["id"]

    # Its end is never told; REST knows.
    act(running, "faults", drop=2)
    act(running, "leave", meeting_id=meeting, session_id=host, at=now + 60)
    act(running, "end", meeting_id=meeting, at=now + 90)
    filled = await asyncio.to_thread(running.command, "daily", "backfill", "--from", "2026-01-01", "--json")
    assert filled.returncode == 0, filled.stderr.decode()
    await until_done(running, f"api-{meeting}", 1)
    (row,) = await rows(running, "select * from meetings where daily_meeting_id = $1", meeting)
    assert (row["status"], 89 <= row["duration_seconds"] <= 91) == ("ended", True)
    people = await rows(running, "select * from participants where meeting_id = $1 order by joined_at", row["id"])
    assert [person["name"] for person in people] == ["Host", "Guest"]
    assert people[0]["role"] == "host"
    assert all(person["left_at"] is not None for person in people)
    link = await asyncio.to_thread(running.command, "daily", "link", str(row["id"]))
    assert link.stdout.startswith(b"https://sandbox.example.com/")
    status = await asyncio.to_thread(running.command, "daily", "status")
    assert status.returncode == 0, status.stdout.decode()
    report = await asyncio.to_thread(running.command, "report", "meetings", "--json")
    told = {one["meeting_id"]: one for one in json.loads(report.stdout)["meetings"]}
    assert (told[str(row["id"])]["calls"], told[str(row["id"])]["participants"]) == (1, 2)
    assert [one["statuses"] for one in running.control("daily", "GET", "/deliveries")["deliveries"]] == [[200]] * 8
