"""A thousand mixed concurrent calls with clients that leave: one row each, at the cost a separate reckoning gives."""

import asyncio
import json
import random
from collections import Counter
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import aiohttp
import asyncpg
import pytest

from pricing.data import read_texts
from tests.support.audits import audited
from tests.support.gateway import Stack
from tests.support.recompute import recompute
from tests.support.whole_gateway import settled_rows

CALLS = 1000
CONCURRENT = 64
SEED = 20261122


def mixed(number: int, dice: random.Random) -> tuple[str, dict[str, Any]]:
    """(path, body) of one call."""
    text = f"Call {number}: " + "words and more words " * dice.randint(1, 60)
    kind = dice.choice(
        ("chat", "chat", "chat stream", "chat stream usage", "responses", "responses stream", "embeddings")
    )
    model = dice.choice(("gpt-4o-mini", "gpt-4.1", "gpt-5.1", "gpt-5.6-luna"))
    if kind == "embeddings":
        return "/embeddings", {"model": "text-embedding-3-small", "input": [text, "second"]}
    if kind.startswith("responses"):
        return "/responses", {"model": model, "input": text, "stream": kind.endswith("stream")}
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": text}]}
    if "stream" in kind:
        body["stream"] = True
    if "usage" in kind:
        body["stream_options"] = {"include_usage": True}
    if dice.random() < 0.2:
        body["service_tier"] = dice.choice(("flex", "priority")) if model == "gpt-5.1" else "default"
    return "/chat/completions", body


async def call(session: aiohttp.ClientSession, stack: Stack, number: int, dice: random.Random) -> str:
    """Makes one call, one in five leaving in the middle; what became of it."""
    path, body = mixed(number, dice)
    leaves = dice.random() < 0.2
    async with session.post(stack.base_url + path, json=body) as response:
        assert response.status == 200, await response.text()
        if leaves:
            await response.content.readany()
            response.close()
            return "left"
        await response.read()
        return "stayed"


@pytest.mark.long
async def test_a_thousand_calls(fresh_stack: Stack) -> None:
    fresh_stack.start(workers=2)
    dice = random.Random(SEED)
    gate = asyncio.Semaphore(CONCURRENT)
    headers = {"Authorization": f"Bearer {fresh_stack.key}"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:

        async def gated(number: int) -> str:
            async with gate:
                return await call(session, fresh_stack, number, random.Random(dice.random()))

        fates = Counter(await asyncio.gather(*(gated(number) for number in range(CALLS))))
    assert fates["left"] > 100
    rows = await settled_rows(fresh_stack.env["DATABASE_URL"], CALLS)
    truth = {one["client_request_id"]: one for one in fresh_stack.truth()}
    assert {str(row["id"]) for row in rows} == truth.keys()
    evidence = Counter(row["evidence"] for row in rows)
    assert evidence.keys() <= {"reported", "drained"}
    prices = read_texts()
    for row in rows:
        assert_right(row, truth[str(row["id"])], prices)
    await assert_sums(fresh_stack.env["DATABASE_URL"], rows)
    await assert_audit_is_clean(fresh_stack.env)


def assert_right(row: asyncpg.Record, truth: dict[str, Any], prices: dict[str, str]) -> None:
    """The row says what OpenAI charged, at the cost that tests/support/recompute.py finds on its own."""
    usage = json.loads(row["usage"])
    assert usage == truth["usage"]
    cost = recompute(prices, row["endpoint"], row["model"], row["service_tier"], row["started_at"], usage)
    assert cost is not None
    assert row["cost_usd"] == cost
    assert row["billed_usd"] == row["cost_usd"]
    lines = sum(Decimal(line["usd"]) for line in json.loads(row["cost_lines"]))
    assert Decimal(lines).quantize(Decimal("1e-9"), ROUND_HALF_EVEN) == cost
    read = usage.get("prompt_tokens", usage.get("input_tokens"))
    assert (row["prompt_tokens"], row["total_tokens"]) == (read, usage["total_tokens"])


async def assert_audit_is_clean(env: dict[str, str]) -> None:
    """Every invariant holds, told beside the gateway that is still running."""
    done, found = await audited(env, "--stripe", "--grace", "0")
    assert {name: one["wrong"] for name, one in found.items() if one["state"] != "ok"} == {}
    assert done.status == 0
    assert found["INV-1"]["figures"]["calls"] == found["INV-3"]["figures"]["re-priced"] == CALLS


async def assert_sums(database_url: str, rows: list[asyncpg.Record]) -> None:
    """Roll-up, key counter and Stripe windows are the sums of the rows."""
    connection = await asyncpg.connect(database_url)
    try:
        billed = sum((row["billed_usd"] for row in rows), Decimal())
        assert await connection.fetchval("select sum(billed_usd) from usage_hourly") == billed
        assert await connection.fetchval("select sum(calls) from usage_hourly") == len(rows)
        assert await connection.fetchval("select sum(usage_count) from api_keys") == len(rows)
        assert await connection.fetchval("select sum(billed_nano) from billing_windows") == int(billed.scaleb(9))
    finally:
        await connection.close()
