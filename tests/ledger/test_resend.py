"""`gateway journal resend`: what a failover or a restore has lost comes back from the journal, each call once."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gateway.ledger.flush import Flush
from gateway.ledger.store import Ledger
from gateway.ledger.stream import Buffer
from gateway.stores.postgres import Pool
from gateway.usage.event import UsageEvent
from gateway.usage.settle import Tokens
from pricing.readers.body import Said
from tests.support.audit_plants import FIRST, SETTLER
from tests.support.audits import Maker, audited, fill, insert, lines, segment
from tests.support.events import sums_are_right
from tests.support.invoke import gateway

LOST = 12
SWEPT_AT = FIRST + timedelta(minutes=2)


class Lost(NamedTuple):
    """A host whose journal has calls, all confirmed, that the ledger has no more."""

    env: dict[str, str]
    events: list[UsageEvent]
    """Of these PostgreSQL has no row."""
    swept: UsageEvent
    """The exact answer to a call whose row is an estimate: the adjustment was lost too."""


@pytest.fixture
async def lost(ledger: Ledger, tmp_path: Path, database_url: str, redis_url: str) -> Lost:
    filled = await fill(ledger, SETTLER, FIRST, count=20, every=timedelta(minutes=3))
    maker: Maker = filled.maker
    kept = [event for event in filled.events if event.adjusts is None]
    events = [maker.reported(FIRST + timedelta(minutes=number)) for number in range(LOST)]
    swept = maker.reported(SWEPT_AT)
    opened = maker.opened(SWEPT_AT, id=swept.id, endpoint=swept.endpoint, model=swept.model)
    ended_at = SWEPT_AT + timedelta(seconds=2)
    estimate = SETTLER.settle_estimated(opened, Said(), ended_at, "process_died", Tokens(120, 30))
    await insert(ledger, [estimate])
    folder = tmp_path / "data" / "journal"
    segment(folder, 1, lines(maker, [*kept, *events[:7]]), confirmed=True)
    segment(folder, 2, lines(maker, [*events[7:], swept]))  # the one that is written now: its calls were confirmed too
    segment(folder, 1, lines(maker, [estimate]), confirmed=True, slot="keeper")
    env = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "GATEWAY_DATA_DIR": str(tmp_path / "data")}
    return Lost(env, events, swept)


async def resent(env: dict[str, str], *options: str) -> dict[str, Any]:
    done = await gateway(env, "journal", "resend", "--json", *options)
    assert (done.status, done.error) == (0, "")
    found: dict[str, Any] = json.loads(done.out)
    return found


async def write_down(buffer: Buffer, ledger: Ledger) -> None:
    """As a worker does."""
    await buffer.ensure_group()
    writer = Flush(
        buffer, ledger, consumer="w", batch_rows_max=100, interval_s=0, claim_idle_s=30,
        monotonic=lambda: 0.0, now=lambda: datetime.now(UTC),
    )  # fmt: skip
    while await writer.step_once():
        pass
    await ledger.add_units()


async def test_what_was_lost_comes_back_once(lost: Lost, buffer: Buffer, ledger: Ledger, pool: Pool) -> None:
    before = await pool.fetchval("select count(*) from openai_usage")
    done, verdicts = await audited(lost.env, "--all", "--grace", "0")
    assert (done.status, verdicts["INV-1"]["figures"]["missing"]) == (1, LOST)
    found = await resent(lost.env, "--dry-run")
    assert (found["missing"], found["corrections"], found["sent"]) == (LOST, 1, 0)
    assert (await buffer.depth()).entries == 0
    found = await resent(lost.env)
    assert (found["segments"], found["missing"], found["corrections"], found["sent"]) == (3, LOST, 1, LOST + 1)
    await resent(lost.env)  # in haste, before a worker has written them: a repeat is harmless
    assert (await buffer.depth()).entries == 2 * (LOST + 1)
    await write_down(buffer, ledger)
    assert await pool.fetchval("select count(*) from openai_usage") == before + LOST + 1
    ids = [event.id for event in lost.events]
    assert await pool.fetchval("select count(*) from openai_usage where id = any($1::uuid[])", ids) == LOST
    assert await sums_are_right(pool)
    exact = await pool.fetchval(
        "select (sum(cost_usd) * 1000000000)::bigint from openai_usage where id = $1 or adjusts = $1", lost.swept.id
    )
    assert exact == lost.swept.cost_nano
    found = await resent(lost.env)
    assert (found["missing"], found["corrections"], found["sent"]) == (0, 0, 0)
    done, verdicts = await audited(lost.env, "--all", "--grace", "0")
    assert {name: each["wrong"] for name, each in verdicts.items() if each["state"] == "breach"} == {}
    assert done.status == 0


async def test_only_calls_of_the_range_are_sent(lost: Lost, buffer: Buffer) -> None:
    since, until = (FIRST + timedelta(minutes=minutes) for minutes in (3, 6))
    options = ("--since", f"{since:%Y-%m-%dT%H:%M:%SZ}", "--until", f"{until:%Y-%m-%dT%H:%M:%SZ}")
    found = await resent(lost.env, *options)
    assert (found["missing"], found["corrections"], found["sent"]) == (3, 0, 3)
    assert {event_id async for event_id in buffer.event_ids()} == {event.id for event in lost.events[3:6]}
    tomorrow = f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%d}"
    assert (await resent(lost.env, "--since", tomorrow))["segments"] == 0


async def test_a_person_is_told(lost: Lost) -> None:
    said = (await gateway(lost.env, "journal", "resend", "--dry-run")).out
    assert f"Not in PostgreSQL: {LOST}. There as an estimate, and exact here: 1." in said
    assert "Nothing was sent (--dry-run)." in said
    said = (await gateway(lost.env, "journal", "resend")).out
    assert f"{LOST + 1} sent." in said
    refused = await gateway(lost.env | {"GATEWAY_DATA_DIR": "/nowhere"}, "journal", "resend")
    assert "there is no such folder" in refused.error
