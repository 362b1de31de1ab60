"""`gateway report meetings`: what each has cost, per participant-minute, and what belongs to none."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.accounts.store import Accounts
from gateway.ledger.store import Ledger
from gateway.stores.postgres import Pool
from tests.support.invoke import gateway
from tests.support.usage import entries, usage

HOUR = datetime(2026, 11, 22, 10, tzinfo=UTC)
Env = dict[str, str]


async def meeting(pool: Pool, user: str | None, room: str, began: datetime | None, minutes: int | None) -> str:
    ended = None if began is None or minutes is None else began + timedelta(minutes=minutes)
    status = "ended" if ended else "in_progress" if began else "scheduled"
    made: str = await pool.fetchval(
        "insert into meetings (user_id, room_name, status, started_at, ended_at, duration_seconds)"
        " values ($1, $2, $3, $4, $5, $6) returning id::text",
        user, room, status, began, ended, None if minutes is None else minutes * 60,
    )  # fmt: skip
    return made


async def joined(pool: Pool, meeting_id: str, at: datetime, seconds: int | None, left: datetime | None = None) -> None:
    await pool.execute(
        "insert into participants (meeting_id, joined_at, duration_seconds, left_at) values ($1, $2, $3, $4)",
        meeting_id, at, seconds, left,
    )  # fmt: skip


@pytest.fixture
async def env(database_url: str, ledger: Ledger, pool: Pool) -> Env:
    """Ann has an interview and an empty meeting, Bob a meeting without calls; another call of Ann's has none."""
    ann, bob = [await Accounts(ledger.pool).create_user(f"{name}@example.com") for name in ("ann", "bob")]
    interview = await meeting(pool, ann, "=interview", HOUR, 30)
    await joined(pool, interview, HOUR, 1800)
    await joined(pool, interview, HOUR + timedelta(minutes=10), None, HOUR + timedelta(minutes=25))
    await joined(pool, interview, HOUR + timedelta(minutes=25), None)  # nobody saw them leave: until its end
    empty = await meeting(pool, ann, "empty", HOUR + timedelta(hours=2), 1)
    await meeting(pool, bob, "bobs", HOUR + timedelta(hours=1), 5)
    await meeting(pool, bob, "planned", None, None)
    calls = [
        usage(ann, HOUR + timedelta(minutes=1), 2_000_000_000, cost_nano=1_000_000_000),
        usage(ann, HOUR + timedelta(minutes=2), 1_000_000_002, cost_nano=500_000_001),
        usage(ann, HOUR + timedelta(hours=2), 10, cost_nano=5),
        usage(ann, HOUR + timedelta(minutes=3), 1_000_000_000, cost_nano=500_000_000),
    ]
    belongs = (interview, interview, empty, None)
    attributed = [msgspec.structs.replace(call, meeting_id=of) for call, of in zip(calls, belongs, strict=True)]
    await ledger.insert_batch(entries(*attributed))
    return {"DATABASE_URL": database_url, "INTERVIEW": interview, "EMPTY": empty}


async def report(env: Env, *options: str) -> Any:
    done = await gateway(env, "report", "meetings", "--json", *options)
    assert (done.status, done.error) == (0, "")
    return json.loads(done.out)


async def test_cost_per_meeting_and_participant_minute(env: Env, pool: Pool) -> None:
    told = await report(env)
    rooms = {row["room_name"]: row for row in told["meetings"]}
    assert list(rooms) == ["=interview", "empty", "bobs"]  # the dearest first; a planned one is not a meeting yet
    interview = rooms["=interview"]
    assert (interview["participants"], interview["participant_minutes"], interview["calls"]) == (3, "50.0", 2)
    assert interview["cost_usd"] == "1.500000001"
    assert interview["cost_usd_per_participant_minute"] == "0.030000000"
    assert (rooms["empty"]["cost_usd"], rooms["empty"]["cost_usd_per_participant_minute"]) == ("0.000000005", None)
    assert (rooms["bobs"]["calls"], rooms["bobs"]["email"]) == (0, "bob@example.com")
    assert (told["unattributed"]["cost_usd"], told["unattributed_percent"]) == ("0.500000000", "25.00")
    total = await pool.fetchval("select sum(cost_usd) from openai_usage")
    parts = [Decimal(row["cost_usd"]) for row in (*told["meetings"], told["unattributed"])]
    assert sum(parts) == total == Decimal(told["totals"]["cost_usd"])


async def test_a_range_and_a_user(env: Env) -> None:
    first = await report(env, "--from", "2026-11-22T10:00:00Z", "--to", "2026-11-22T10:02:00Z")
    (interview,) = first["meetings"]
    assert (interview["cost_usd"], interview["participant_minutes"]) == ("1.000000000", "50.0")
    assert first["unattributed"] is None
    bobs = await report(env, "--user", "bob@example.com")
    assert [row["room_name"] for row in bobs["meetings"]] == ["bobs"]
    assert (bobs["unattributed"], bobs["unattributed_percent"], bobs["totals"]["calls"]) == (None, "0", 0)


async def test_csv_and_table(env: Env, tmp_path: Path) -> None:
    file = tmp_path / "meetings.csv"
    done = await gateway(env, "report", "meetings", "--csv", "--output", str(file))
    assert (done.status, done.error) == (0, "")
    rows = list(csv.DictReader(io.StringIO(file.read_text(), newline=""), strict=True))
    assert [row["room_name"] for row in rows] == ["'=interview", "empty", "bobs", ""]
    assert sum(Decimal(row["cost_usd"]) for row in rows) == Decimal("2.000000006")
    wide = await gateway(env, "report", "meetings")
    narrow = await gateway(env | {"COLUMNS": "80"}, "report", "meetings")
    for table in (wide.out, narrow.out):
        assert "1.500000001" in table
        assert "Without a meeting: 1 calls, 0.500000000 USD (25.00 % of the cost)" in " ".join(table.split())
    done = await gateway(env, "report", "meetings", "--user", "nobody@example.com")
    assert "--user: there is no user nobody@example.com" in done.error


async def test_nothing_at_all(database_url: str) -> None:
    told = await report({"DATABASE_URL": database_url})
    assert (told["meetings"], told["unattributed"], told["unattributed_percent"]) == ([], None, "0")


async def test_what_has_no_price_is_never_shown_as_0(database_url: str, ledger: Ledger, pool: Pool) -> None:
    ann = await Accounts(ledger.pool).create_user("ann@example.com")
    unknown = usage(ann, HOUR, None, evidence="unpriced", model="gpt-99")
    talk = await meeting(pool, ann, "talk", HOUR, 1)
    attributed = msgspec.structs.replace(usage(ann, HOUR, None, evidence="unpriced", model="gpt-99"), meeting_id=talk)
    await ledger.insert_batch(entries(unknown, attributed))
    env = {"DATABASE_URL": database_url}
    told = await report(env)
    assert told["unattributed"]["cost_usd"] is told["totals"]["cost_usd"] is told["meetings"][0]["cost_usd"] is None
    assert "0.000000000" not in (await gateway(env, "report", "meetings")).out
    assert "0.000000000" not in (await gateway(env, "report", "meetings", "--csv")).out
