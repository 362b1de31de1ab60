"""Usage blocks that jsonb cannot hold: the call keeps its row and its counts, the block its bytes."""

import json
from collections.abc import Callable
from random import Random
from typing import Any

import asyncpg
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.accounts.store import Accounts
from gateway.ledger.rows import LedgerEntry
from gateway.ledger.store import Ledger, Outcome
from gateway.stores.postgres import Pool
from gateway.usage.event import UsageEvent, encode
from gateway.usage.usage_block import BLOCK_BYTES_MAX, keep
from tests.support.events import call, new_id

COUNTS = b'{"prompt_tokens":100,"completion_tokens":20,"total_tokens":120,"x":%s}'
ODD = {
    "NUL": COUNTS % rb'"a\u0000b"',
    "half a surrogate pair": COUNTS % rb'"\ud800"',
    "beyond numeric": COUNTS % b"1e999999",
    "no UTF-8": COUNTS % b'"\xff"',
    "long": COUNTS % (b'"' + b"y" * BLOCK_BYTES_MAX + b'"'),
    "deep": COUNTS % (b"[" * 4000 + b"]" * 4000),
}


def as_of_old(event: UsageEvent, block: bytes) -> LedgerEntry:
    """The entry of an older version, which put the block into the record as it came."""
    raw = encode(event)
    kept = b'"usage":' + bytes(event.usage)
    assert raw.count(kept) == 1
    return LedgerEntry(event.id, raw.replace(kept, b'"usage":' + block))


def as_of_now(event: UsageEvent, block: bytes) -> LedgerEntry:
    kept = keep(block)
    metadata = {**event.metadata, "problems": ["low confidence", kept.problem]}
    return LedgerEntry.of(msgspec.structs.replace(event, usage=kept.usage, usage_raw=kept.raw, metadata=metadata))


@pytest.mark.parametrize("made", [as_of_old, as_of_now])
@pytest.mark.parametrize("name", ODD)
async def test_the_row_stays_and_the_block_is_kept_as_bytes(
    ledger: Ledger, pool: Pool, name: str, made: Callable[[UsageEvent, bytes], LedgerEntry]
) -> None:
    user, random = await Accounts(ledger.pool).create_user("a@example.com"), Random(3)
    events = [
        call(user, new_id(random), metadata={"status": 200, "problems": ["low confidence"], "x": "é"}) for _ in range(3)
    ]
    entry = made(events[1], ODD[name])
    batch = [LedgerEntry.of(events[0]), entry, LedgerEntry.of(events[2])]
    assert await ledger.insert_batch(batch) == Outcome(3, 0, 0)
    assert await ledger.insert_batch(batch) == Outcome(0, 3, 0)
    row = await pool.fetchrow("select * from openai_usage where id = $1", events[1].id)
    assert row is not None
    assert (row["usage"], row["usage_raw"]) == (None, ODD[name][:BLOCK_BYTES_MAX])
    assert (row["prompt_tokens"], row["completion_tokens"], row["total_tokens"]) == (100, 20, 120)
    metadata = json.loads(row["metadata"])
    assert (metadata["status"], metadata["x"], metadata["problems"][0]) == (200, "é", "low confidence")
    assert metadata["problems"][1].startswith("usage block kept as bytes: ")
    assert await pool.fetchval("select count(*) from openai_usage where usage is null") == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.text() | st.integers().map(lambda n: n * 10 ** (n % 400)) | st.just("\\u0000"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
NUMBERS = st.from_regex(r"-?(0|[1-9][0-9]{0,1100})(\.[0-9]{1,1100})?([eE][+-]?[0-9]{1,7})?", fullmatch=True)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=100)
@given(st.data())
async def test_what_is_kept_as_json_is_json_to_postgresql(pool: Pool, data: st.DataObject) -> None:
    blocks = data.draw(st.lists(JSON.map(json.dumps) | NUMBERS, min_size=1, max_size=30))
    kept = [keep(b'{ "a" : ' + block.encode() + b"}") for block in blocks]
    texts = [str(each.usage, "utf-8") for each in kept if each.raw is None]
    await pool.fetch("select unnest($1::text[])::jsonb", texts)


async def test_the_ledger_bounds_the_bytes_and_keeps_one_of_the_two(ledger: Ledger, pool: Pool) -> None:
    user = await Accounts(ledger.pool).create_user("a@example.com")

    async def insert(**changes: Any) -> None:
        event = call(user, new_id(Random(len(str(changes)))))
        fields = {"usage": None, "usage_raw": b"{", **changes}
        await pool.execute(
            "insert into openai_usage (id, user_id, endpoint, model, evidence, cost_usd, billed_usd, started_at,"
            " completed_at, usage, usage_raw) values ($1, $2, 'chat', 'm', 'reported', 0, 0, now(), now(), $3, $4)",
            event.id, user, fields["usage"], fields["usage_raw"],
        )  # fmt: skip

    await insert()
    await insert(usage_raw=b"x" * BLOCK_BYTES_MAX)
    with pytest.raises(asyncpg.CheckViolationError, match="usage_raw_bounded"):
        await insert(usage_raw=b"x" * (BLOCK_BYTES_MAX + 1))
    with pytest.raises(asyncpg.CheckViolationError, match="usage_kept_once"):
        await insert(usage="{}")
