"""`gateway daily` and `doctor` beside other products' webhooks and over lists that say too little: nothing breaks."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.sandbox import credentials
from gateway.sandbox.server import Sandbox
from gateway.stores.postgres import Pool
from tests.meetings.daily_lives import work
from tests.meetings.daily_server import KEY, daily_server, meeting
from tests.sandbox.daily.test_daily import Receiver, receiver
from tests.support.invoke import gateway
from tests.support.stand_ins import Clock, control, sandbox_at

__all__ = ["receiver"]
NOW = 1_795_000_000.0


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with sandbox_at(Clock(NOW)) as running:
        yield running


@pytest.mark.parametrize(
    "ours",
    [
        {},
        {"overlay": {"state": "ACTVIE", "failedCount": 1.0, "lastMomentPushed": 1692124192, "hmac": None}},
    ],
)
async def test_odd_entries_break_nothing(
    sandbox: Sandbox, receiver: Receiver, ours: dict[str, Any], database_url: str, tmp_path: Path
) -> None:
    env = {
        "DATABASE_URL": database_url,
        "DAILY_API_KEY": credentials.DAILY_API_KEY,
        "DAILY_BASE_URL": f"{sandbox.origin}/daily/v1",
        "DAILY_WEBHOOK_SECRET": credentials.DAILY_WEBHOOK_SECRET,
        "GATEWAY_DATA_DIR": str(tmp_path),
    }
    await control(sandbox, "daily", "/webhooks", foreign="odd", **ours)
    for says in ("Registered", "Nothing to do for"):
        done = await gateway(env, "daily", "register", "--url", receiver.url)
        assert (done.status, says in done.out) == (0, True), done
    looked = await gateway(env, "daily", "status", "--url", receiver.url)
    assert (looked.status, "ACTIVE" in looked.out) == (0, True), looked
    doctor = json.loads((await gateway(env, "doctor", "--json")).out)
    told = [(one["level"], one["says"]) for one in doctor if one["what"] == "daily"]
    assert ("ok", f"it takes our key, and tells {receiver.url}") in told, told


async def test_an_old_registration_is_seen_to_retry_the_other_way(
    sandbox: Sandbox, receiver: Receiver, database_url: str
) -> None:
    env = {
        "DATABASE_URL": database_url,
        "DAILY_API_KEY": credentials.DAILY_API_KEY,
        "DAILY_BASE_URL": f"{sandbox.origin}/daily/v1",
        "DAILY_WEBHOOK_SECRET": credentials.DAILY_WEBHOOK_SECRET,
    }
    assert (await gateway(env, "daily", "register", "--url", receiver.url)).status == 0
    await control(sandbox, "daily", "/webhooks", without=["retryType"], overlay={"eventTypes": None, "state": 1})
    looked = await gateway(env, "daily", "status", "--url", receiver.url)
    assert looked.status == 1
    for says in ("its state is 1, not ACTIVE", "retries by circuit-breaker", "does not tell of meeting.ended"):
        assert says in looked.out


async def test_a_backfill_over_lists_that_leave_people_out(sandbox: Sandbox, pool: Pool, database_url: str) -> None:
    """The people are asked for page by page, until there is nothing but a 404; no meeting of the page is lost."""
    env = {
        "DATABASE_URL": database_url,
        "DAILY_API_KEY": credentials.DAILY_API_KEY,
        "DAILY_BASE_URL": f"{sandbox.origin}/daily/v1",
    }
    for number in range(2):
        who = [
            (await control(sandbox, "daily", "/enter", room="r", name=name, at=NOW + 9000 * number))["session_id"]
            for name in ("Ann", "Bob", "Cem")
        ]
        for session_id in who:
            await control(sandbox, "daily", "/exit", session_id=session_id, at=NOW + 9000 * number + 60)
    await control(sandbox, "daily", "/faults", short_lists=1)
    done = await gateway(env, "daily", "backfill", "--from", "2026-01-01", "--to", "2027-01-01", "--json")
    assert (done.status, json.loads(done.out)["meetings"], json.loads(done.out)["incomplete"]) == (0, 2, 0), done
    worker = work(pool)
    while await worker.step_once():
        pass
    assert await pool.fetchval("select count(*) from participants") == 6


async def test_a_backfill_that_could_not_have_all_people_says_so(database_url: str, pool: Pool) -> None:
    async with daily_server() as server:
        server.meetings = [meeting(2) | {"max_participants": 5}, meeting(1)]
        server.broken_people = 400
        env = {"DATABASE_URL": database_url, "DAILY_API_KEY": KEY, "DAILY_BASE_URL": server.base_url}
        done = await gateway(env, "daily", "backfill", "--from", "2026-01-01")
        assert (done.status, "People are missing in 1 of them" in " ".join(done.out.split())) == (0, True), done
        assert await pool.fetchval("select count(*) from webhook_inbox") == 2
        server.broken_people = None
        again = await gateway(env, "daily", "backfill", "--from", "2026-01-01", "--json")
        assert (json.loads(again.out)["new"], json.loads(again.out)["incomplete"]) == (1, 0)
