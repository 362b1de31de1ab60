"""`gateway daily`: our webhook made, fixed and looked at; past meetings walked over, broken off and gone on with."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.meetings.backfill import Backfill
from gateway.meetings.backfill_cursors import BackfillCursors
from gateway.meetings.daily_api import Page
from gateway.meetings.inbox import Inbox
from gateway.stores.postgres import Pool
from tests.meetings.daily_lives import work
from tests.meetings.daily_server import KEY, DailyServer, daily_server, meeting
from tests.support.invoke import Done, gateway
from tests.support.whole_gateway import DAILY_SECRET

URL = "https://gateway.example.com/webhooks/daily"
Env = dict[str, str]


@pytest.fixture
async def server() -> AsyncIterator[DailyServer]:
    async with daily_server() as running:
        yield running


@pytest.fixture
def env(server: DailyServer, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Env:
    monkeypatch.setattr("gateway.meetings.daily_api.PACE_S", 0.0)
    return {
        "DATABASE_URL": database_url,
        "DAILY_API_KEY": KEY,
        "DAILY_BASE_URL": server.base_url,
        "DAILY_WEBHOOK_SECRET": DAILY_SECRET,
    }


async def daily(env: Env, *arguments: str) -> Done:
    done = await gateway(env, "daily", *arguments)
    assert KEY not in done.out + done.error + done.noted
    assert DAILY_SECRET not in done.out + done.error + done.noted
    return done


async def test_register_makes_fixes_and_leaves_alone(env: Env, server: DailyServer) -> None:
    server.webhooks = [{"uuid": "theirs", "url": "https://example.com/other", "state": "FAILED", "eventTypes": ["x"]}]
    done = await daily(env, "register", "--url", URL)
    assert (done.status, "Registered" in done.out) == (0, True), done
    ours = server.webhooks[1]
    assert (ours["retryType"], ours["hmac"], ours["url"]) == ("exponential", DAILY_SECRET, URL)
    assert "transcript.ready-to-download" in ours["eventTypes"]
    assert "Nothing to do" in (await daily(env, "register", "--url", URL)).out
    changes: list[dict[str, Any]] = [
        {"state": "FAILED"},
        {"retryType": "circuit-breaker"},
        {"hmac": "b3RoZXI="},
        {"eventTypes": ["meeting.started"]},
    ]
    for change in changes:
        server.webhooks[1] |= change
        looked = await daily(env, "status")
        assert (looked.status, "wrong: " in looked.out) == (1, True)
        assert "Fixed" in (await daily(env, "register", "--url", URL)).out
        looked = await daily(env, "status")
        assert (looked.status, "ACTIVE, 0 failures in a row" in looked.out) == (0, True), looked
    assert (len(server.webhooks), server.webhooks[0]["state"]) == (2, "FAILED")


async def test_status_fails_while_events_do(env: Env, pool: Pool) -> None:
    assert (await daily(env, "register", "--url", URL)).status == 0
    assert (await daily(env, "status")).status == 0
    await pool.execute(
        "insert into webhook_inbox (source, event_id, event_type, body, attempts) values ('daily', 'e', 'x', '{}', 1)"
    )
    looked = await daily(env, "status")
    assert (looked.status, "1 events could not be applied" in looked.out) == (1, True), looked


async def test_what_register_refuses(env: Env, server: DailyServer) -> None:
    for url in (
        "http://gateway.example.com/webhooks/daily",
        "https://gateway.example.com/",
        "webhooks/daily",
        URL + "?a=b",
    ):
        assert "--url" in (await daily(env, "register", "--url", url)).error
    server.listens = False
    assert "non-200 status code" in (await daily(env, "register", "--url", URL)).error
    for missing in ("DAILY_API_KEY", "DAILY_WEBHOOK_SECRET"):
        without = {name: value for name, value in env.items() if name != missing}
        assert missing in (await daily(without, "register", "--url", URL)).error
    assert (await daily(env, "status", "--json")).status == 1


async def apply(pool: Pool) -> None:
    worker = work(pool)
    while await worker.step_once():
        pass


async def counts(pool: Pool) -> tuple[int, ...]:
    """Meetings, participants, events."""
    tables = ("meetings", "participants", "webhook_inbox")
    return tuple([await pool.fetchval(f"select count(*) from {table}") for table in tables])


async def test_backfill_twice_and_beside_webhooks(env: Env, server: DailyServer, pool: Pool) -> None:
    server.meetings = [meeting(number, room=f"room-{number % 3}") for number in range(120, 0, -1)]
    done = await daily(env, "backfill", "--from", "2026-01-01", "--to", "2027-01-01", "--json")
    assert done.status == 0, done.error
    assert (json.loads(done.out)["meetings"], json.loads(done.out)["new"]) == (120, 120)
    await apply(pool)
    assert await counts(pool) == (120, 240, 120)
    again = json.loads((await daily(env, "backfill", "--from", "2026-01-01", "--to", "2027-01-01", "--json")).out)
    assert (again["meetings"], again["new"]) == (120, 0)
    server.meetings[5]["duration"] += 60
    only = await daily(env, "backfill", "--from", "2026-01-01", "--room", server.meetings[5]["room"], "--json")
    assert json.loads(only.out)["new"] == 1
    await apply(pool)
    assert await counts(pool) == (120, 240, 121)
    seconds = "select duration_seconds from meetings where daily_meeting_id = $1"
    assert await pool.fetchval(seconds, server.meetings[5]["id"]) == 660


async def test_a_walk_that_was_broken_off_goes_on(env: Env, server: DailyServer, pool: Pool) -> None:
    server.meetings = [meeting(number) for number in range(250, 0, -1)]
    first = Backfill(_Breaks(server, after=1), Inbox(pool), BackfillCursors(pool))
    begins, now = datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 6, 1, tzinfo=UTC)
    with pytest.raises(RuntimeError):
        await first.run(begins, None, now=now, room=None, again=False, progress=lambda *_: None)
    assert await pool.fetchval("select count(*) from webhook_inbox") == 100
    source = _Breaks(server, after=99)
    second = Backfill(source, Inbox(pool), BackfillCursors(pool))
    later = datetime(2027, 7, 1, tzinfo=UTC)
    walked = await second.run(begins, None, now=later, room=None, again=False, progress=lambda *_: None)
    assert (walked.meetings, walked.new, walked.until, source.pages) == (250, 150, now, 2)
    third = _Breaks(server, after=99)
    walked = await Backfill(third, Inbox(pool), BackfillCursors(pool)).run(
        begins, None, now=later, room=None, again=False, progress=lambda *_: None
    )
    assert (walked.meetings, walked.new, walked.until, third.pages) == (250, 0, later, 3)


class _Breaks:
    """Pages of the server; a power cut after so many."""

    def __init__(self, server: DailyServer, *, after: int) -> None:
        self._server, self._after, self.pages = server, after, 0

    async def page(self, since: int, until: int, *, room: str | None = None, after: str | None = None) -> Page:
        if self.pages == self._after:
            raise RuntimeError("power cut")
        self.pages += 1
        ids = [one["id"] for one in self._server.meetings]
        first = 0 if after is None else ids.index(after) + 1
        found = self._server.meetings[first : first + 100]
        return Page(found, found[-1]["id"] if len(found) == 100 else None, len(ids))


async def test_reconciling_is_one_worker_s_turn(env: Env, server: DailyServer, pool: Pool) -> None:
    running = meeting(1, ongoing=True)
    server.meetings = [running]
    one, other = (Backfill(_Breaks(server, after=9), Inbox(pool), BackfillCursors(pool)) for _ in range(2))
    now = datetime.now(UTC)
    assert await one.reconcile(now, hours=6, lease_s=60) == 1
    assert await other.reconcile(now, hours=6, lease_s=60) is None
    await pool.execute("update daily_backfills set leased_until = now() - interval '1 second'")
    running["duration"] += 900  # how long it has lasted so far is not news
    assert await other.reconcile(now, hours=6, lease_s=60) == 0
    await apply(pool)
    assert await pool.fetchval("select status from meetings") == "in_progress"
    running["ongoing"] = False
    await pool.execute("update daily_backfills set leased_until = now() - interval '1 second'")
    assert await one.reconcile(now, hours=6, lease_s=60) == 1
    await apply(pool)
    assert await pool.fetchval("select duration_seconds from meetings") == 1500


async def test_links_of_a_meeting(env: Env, pool: Pool) -> None:
    made = await pool.fetchval(
        "insert into meetings (room_name, recording_url) values ('r', 'daily-recording:x1') returning id::text"
    )
    done = await daily(env, "link", made, "--json")
    assert json.loads(done.out) == {"url": "https://example.com/x1", "expires": "2026-11-24T06:00:00Z"}
    assert "has no transcript" in (await daily(env, "link", made, "--transcript")).error
    assert "there is no meeting" in (await daily(env, "link", "00000000-0000-7000-8000-00000000000a")).error
    assert "a UUID" in (await daily(env, "link", "x")).error


async def test_doctor_on_daily(env: Env, server: DailyServer, tmp_path: Path) -> None:
    async def says(environ: Env) -> list[tuple[str, str]]:
        done = await gateway(environ | {"GATEWAY_DATA_DIR": str(tmp_path)}, "doctor", "--json")
        return [(one["level"], one["says"]) for one in json.loads(done.out) if one["what"] == "daily"]

    assert (await says(env))[0] == ("warn", "it has no webhook of ours: it tells us nothing")
    await daily(env, "register", "--url", URL)
    assert await says(env) == [("ok", f"it takes our key, and tells {URL}")]
    assert (await says(env | {"DAILY_API_KEY": "wrong"}))[0][0] == "warn"
    assert await says({"DATABASE_URL": env["DATABASE_URL"]}) == [
        ("ok", "not configured: meetings are not filled by Daily.co")
    ]
