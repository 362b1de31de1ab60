"""Batches into the ledger: exactly once, exact money, every sum right, nothing dropped."""

from datetime import timedelta
from decimal import Decimal
from random import Random
from typing import Any

import asyncpg
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.accounts.store import Accounts
from gateway.billing.explain import store as explain
from gateway.corrections import store as corrections
from gateway.ledger.rows import LedgerEntry, NotARow, _Event, to_row
from gateway.ledger.sql import COLUMNS, INSERT_BATCH
from gateway.ledger.store import Ledger, Outcome
from gateway.openai.objects import UpstreamObjects
from gateway.stores.postgres import Pool
from gateway.usage.event import UsageEvent, encode
from tests.conftest import WINDOW_S
from tests.support.events import AT, call, linked, new_id, sums_are_right


@pytest.fixture
def random() -> Random:
    return Random(7)


def test_a_row_has_every_field_of_an_event() -> None:
    ours = {field.name for field in msgspec.structs.fields(_Event)}
    assert ours == {field.name for field in msgspec.structs.fields(UsageEvent)} == {name for name, _ in COLUMNS}


@given(st.integers(-(2**63), 2**63 - 1), st.text(max_size=30), st.none() | st.text(max_size=20))
def test_an_event_survives_the_way_through_its_bytes(nano: int, model: str, tier: str | None) -> None:
    event = call("u", "i", cost_nano=nano, model=model, service_tier=tier, metadata={"m": model})
    row = dict(zip([name for name, _ in COLUMNS], to_row(LedgerEntry.of(event)), strict=True))
    assert (row["cost_nano"], row["model"], row["service_tier"]) == (nano, model, tier)
    assert (row["started_at"], row["completed_at"]) == (event.started_at, event.completed_at)
    assert msgspec.json.decode(str(row["metadata"])) == event.metadata


@pytest.mark.parametrize("cut", range(0, 400, 7))
def test_bytes_cut_anywhere_are_no_row(cut: int) -> None:
    whole = encode(call("u", "i"))
    with pytest.raises(NotARow):
        to_row(LedgerEntry("i", whole[:cut]))
    with pytest.raises(NotARow):
        to_row(LedgerEntry("i", whole + b"x"))


async def test_a_row_is_the_event(ledger: Ledger, pool: Pool, random: Random) -> None:
    user, key = await linked(ledger)
    event = call(user, new_id(random), api_key_id=key, cost_nano=9_000_000_000_000_000_001, billed_nano=7)
    assert await ledger.insert_batch([LedgerEntry.of(event)]) == Outcome(1, 0, 0)
    row = await pool.fetchrow("select * from openai_usage")
    assert row is not None
    assert (str(row["id"]), str(row["user_id"]), str(row["api_key_id"])) == (event.id, user, key)
    assert (row["cost_usd"], row["billed_usd"]) == (Decimal("9000000000.000000001"), Decimal("0.000000007"))
    assert (row["created_at"], row["started_at"]) == (event.completed_at, event.started_at)
    assert msgspec.json.decode(row["usage"]) == msgspec.json.decode(bytes(event.usage))
    assert msgspec.json.decode(row["cost_lines"])[0]["usd_per_unit"] == "0.00000025"
    assert msgspec.json.decode(row["metadata"]) == {"status": 200}
    assert (row["meeting_id"], row["adjusts"], row["response_id"]) == (None, None, event.response_id)


async def test_repeats_count_nowhere(ledger: Ledger, pool: Pool, random: Random) -> None:
    user, key = await linked(ledger)
    events = [call(user, new_id(random), api_key_id=key, seconds=i) for i in range(50)]
    entries = [LedgerEntry.of(event) for event in events]
    assert await ledger.insert_batch(entries[:30]) == Outcome(30, 0, 0)
    assert await ledger.insert_batch(entries[10:] + entries[40:]) == Outcome(20, 30, 0)
    assert await ledger.insert_batch([]) == Outcome(0, 0, 0)
    assert await sums_are_right(pool)
    key_row = (await Accounts(pool).keys(user))[0]
    assert (key_row.usage_count, key_row.last_used_at) == (50, AT + timedelta(seconds=49))


class PoolWithRival:
    """Another writer inserts the same batch first. Then as PostgreSQL has it for two statements that insert one call at
    once: a violation of the unique response id."""

    def __init__(self, pool: Pool, rival: Ledger, entry: LedgerEntry) -> None:
        self.pool, self.rival, self.waiting = pool, rival, [entry]

    async def fetch(self, query: str, *arguments: object) -> Any:
        if query == INSERT_BATCH and self.waiting:
            assert await self.rival.insert_batch([self.waiting.pop()]) == Outcome(1, 0, 0)
            raise asyncpg.UniqueViolationError("duplicate key value violates unique constraint")
        return await self.pool.fetch(query, *arguments)


async def test_two_writers_of_one_call_put_nothing_aside(ledger: Ledger, pool: Pool, random: Random) -> None:
    user, _ = await linked(ledger)
    entry = LedgerEntry.of(call(user, new_id(random), response_id="resp_1"))
    late: Any = PoolWithRival(pool, ledger, entry)
    assert await Ledger(late, meter="m", window_s=WINDOW_S).insert_batch([entry]) == Outcome(0, 1, 0)
    assert await ledger.count_quarantined() == 0
    assert await sums_are_right(pool)


async def test_sums_by_hour_and_window(ledger: Ledger, pool: Pool, random: Random) -> None:
    user, key = await linked(ledger)
    other, _ = await linked(ledger, "b")
    hour = 3600
    events = [
        call(user, new_id(random), api_key_id=key, seconds=45 * 60 - 1),  # 10:59:59
        call(user, new_id(random), api_key_id=key, seconds=45 * 60),  # 11:00:00
        call(user, new_id(random), seconds=45 * 60, billed_nano=0),
        call(user, new_id(random), seconds=hour, service_tier=None, evidence="estimated"),
        call(user, new_id(random), evidence="unpriced", cost_nano=None, billed_nano=None),
        call(user, new_id(random), evidence="void", cost_nano=0, billed_nano=0, total_tokens=None),
        call(other, new_id(random)),
    ]
    correction = call(
        user,
        new_id(random),
        evidence="adjustment",
        adjusts=events[0].id,
        response_id=None,
        cost_nano=-5,
        billed_nano=-5,
    )
    await ledger.insert_batch([LedgerEntry.of(event) for event in events[:3]])
    await ledger.insert_batch([LedgerEntry.of(event) for event in [*events[3:], correction]])
    assert await sums_are_right(pool)
    windows = await pool.fetch(
        "select window_start, billed_nano, window_seconds, open from billing_windows where user_id = $1 order by 1",
        user,
    )
    assert [tuple(row) for row in windows] == [
        (AT.replace(minute=0), 1_234_567 - 5, WINDOW_S, True),
        (AT.replace(hour=11, minute=0), 1_234_567 * 2, WINDOW_S, True),
    ]
    hours = await pool.fetch(
        "select hour, evidence, api_key_id is null, calls, rows, total_tokens from usage_hourly where user_id = $1"
        " order by 1, 2, 3", user)  # fmt: skip
    assert [tuple(row)[1:] for row in hours] == [
        ("adjustment", True, 0, 1, 120),
        ("reported", False, 1, 1, 120),
        ("unpriced", True, 1, 1, 120),
        ("void", True, 1, 1, 0),
        ("estimated", True, 1, 1, 120),
        ("reported", False, 1, 1, 120),
        ("reported", True, 1, 1, 120),
    ]


async def test_a_short_window_and_another_meter(pool: Pool, random: Random) -> None:
    ledger = Ledger(pool, meter="other", window_s=7)
    user, _ = await linked(ledger)
    await ledger.insert_batch([LedgerEntry.of(call(user, new_id(random), seconds=i)) for i in range(14)])
    rows = await pool.fetch(
        "select meter, window_seconds, extract(epoch from window_start)::bigint % 7, billed_nano from billing_windows"
    )
    assert {(row[0], row[1], row[2]) for row in rows} == {("other", 7, 0)}
    assert sum(row[3] for row in rows) == 14 * 1_234_567


async def test_only_responses_get_an_owner(ledger: Ledger, random: Random) -> None:
    user, key = await linked(ledger)
    await ledger.insert_batch([
        LedgerEntry.of(call(user, new_id(random), api_key_id=key, endpoint="responses", response_id="resp_1")),
        LedgerEntry.of(call(user, new_id(random), response_id="chatcmpl-1")),
        LedgerEntry.of(call(user, new_id(random), endpoint="responses", response_id=None)),
    ])  # fmt: skip
    assert await UpstreamObjects(ledger.pool).owners(["resp_1", "chatcmpl-1", "resp_\x00"]) == {"resp_1": user}


async def test_items_get_the_owner_of_their_answer(pool: Pool, ledger: Ledger, random: Random) -> None:
    user, key = await linked(ledger)
    other = await Accounts(ledger.pool).create_user("another@example.com")
    first = call(user, new_id(random), api_key_id=key, endpoint="responses", item_ids=("rs_1", "msg_1"))
    again = call(other, new_id(random), endpoint="responses", item_ids=("msg_1", "msg_2"))
    await ledger.insert_batch([LedgerEntry.of(first), LedgerEntry.of(first)])
    await ledger.insert_batch([LedgerEntry.of(first), LedgerEntry.of(again)])
    # An id belongs to whom it was given first.
    asked = ["rs_1", "msg_1", "msg_2", "msg_3"]
    assert await UpstreamObjects(ledger.pool).owners(asked) == {"rs_1": user, "msg_1": user, "msg_2": other}
    rows = await pool.fetch(
        "select object_id, api_key_id::text, event_id::text from upstream_objects where kind = 'item' order by 1"
    )
    assert [tuple(row) for row in rows] == [
        ("msg_1", key, first.id),
        ("msg_2", None, again.id),
        ("rs_1", key, first.id),
    ]
    await pool.fetch("update upstream_objects set deleted_at = now() where object_id = 'rs_1'")
    assert await UpstreamObjects(ledger.pool).owners(["rs_1"]) == {}


POISON: dict[str, dict[str, Any]] = {
    "nul": {"model": "a\x00b"},
    "nul in json": {"metadata": {"a": "b\x00"}},
    "overflow": {"prompt_tokens": 2**63},
    "unknown user": {"user_id": "00000000-0000-7000-8000-00000000000f"},
    "unknown meeting": {"meeting_id": "00000000-0000-7000-8000-00000000000f"},
    "no uuid": {"api_key_id": "key"},
    "check": {"evidence": "unpriced"},
    "json shape": {"usage": msgspec.Raw(b'"text"')},
    "too wide for an index": {"model": "".join(chr(0x4E00 + i % 9999) for i in range(9000))},
    "too much money": {"cost_nano": 10**30, "billed_nano": 0},
}


@pytest.mark.parametrize("name", POISON)
async def test_a_poison_row_stands_alone(ledger: Ledger, pool: Pool, random: Random, name: str) -> None:
    user, key = await linked(ledger)
    good = [LedgerEntry.of(call(user, new_id(random), api_key_id=key)) for _ in range(20)]
    bad = LedgerEntry.of(call(**{"user_id": user, "event_id": new_id(random)} | POISON[name]))
    batch = [*good[:13], bad, *good[13:]]
    assert await ledger.insert_batch(batch) == Outcome(20, 0, 1)
    assert await ledger.insert_batch(batch) == Outcome(0, 21, 0)
    row = await pool.fetchrow("select event_id, raw, reason from usage_quarantine")
    assert row is not None
    assert (row["event_id"], row["raw"]) == (bad.event_id, bad.raw)
    assert row["reason"]
    assert await sums_are_right(pool)
    assert await ledger.find_confirmed([bad.event_id, good[0].event_id, new_id(random), "x"]) == {
        bad.event_id,
        good[0].event_id,
    }


@pytest.mark.parametrize(
    "entry",
    [
        LedgerEntry("a\x00b", b""),
        LedgerEntry("", b"\xff\x00"),
        LedgerEntry("\ud800", b"{}"),
        LedgerEntry("x", encode(call("u", "y"))),
    ],
)
async def test_what_is_no_event_is_kept_byte_for_byte(ledger: Ledger, pool: Pool, entry: LedgerEntry) -> None:
    assert await ledger.insert_batch([entry, entry]) == Outcome(0, 1, 1)
    assert await pool.fetchval("select raw from usage_quarantine") == entry.raw
    assert await sums_are_right(pool)


async def test_a_second_row_for_one_answer_is_not_lost(ledger: Ledger, pool: Pool, random: Random) -> None:
    user, _ = await linked(ledger)
    twins = [LedgerEntry.of(call(user, new_id(random), response_id="chatcmpl-same")) for _ in range(2)]
    assert await ledger.insert_batch(twins) == Outcome(1, 0, 1)
    assert "openai_usage_response_id_key" in str(await pool.fetchval("select reason from usage_quarantine"))
    assert await sums_are_right(pool)


async def test_an_adjustment_may_come_with_the_row_it_corrects(ledger: Ledger, pool: Pool, random: Random) -> None:
    user, _ = await linked(ledger)
    row = call(user, new_id(random))
    fix = call(user, new_id(random), evidence="adjustment", adjusts=row.id, response_id=None, prompt_tokens=-4)
    assert await ledger.insert_batch([LedgerEntry.of(fix), LedgerEntry.of(row)]) == Outcome(2, 0, 0)
    assert await sums_are_right(pool)


@pytest.mark.parametrize(
    ("statement", "named", "index"),
    [
        (corrections._BY_RESPONSE, ["resp_1"], "openai_usage_response_id_key"),
        (corrections._BY_REQUEST, ["req_1"], "openai_usage_request_id_idx"),
        (explain._ROW_ANSWER, "resp_1", "openai_usage_response_id_key"),
        (explain._ROW_REQUEST, "req_1", "openai_usage_request_id_idx"),
    ],
)
async def test_a_call_is_found_by_what_openai_calls_it_without_reading_the_ledger(
    pool: Pool, statement: str, named: object, index: str
) -> None:
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("set local enable_seqscan = off; set local plan_cache_mode = force_generic_plan")
        plan = await connection.fetch(f"explain {statement}", named)
    assert index in "\n".join(row[0] for row in plan)
