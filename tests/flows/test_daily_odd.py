"""`gateway daily` and `doctor` beside other products' webhooks, against the stand-in: odd entries break nothing."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.sandbox import credentials
from gateway.sandbox.server import Sandbox
from tests.edges.stand_ins import Clock, control, sandbox_at
from tests.edges.test_sandbox_daily import Receiver, receiver
from tests.flows.invoke import gateway

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
