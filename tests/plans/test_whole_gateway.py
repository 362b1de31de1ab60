"""Plans in a whole gateway: a proxy that runs hears of one, and bills by it."""

import asyncio
from uuid import uuid4

import asyncpg
import openai
import pytest

from gateway.stores.postgres import open_pool
from tests.support.gateway import Stack
from tests.support.plans import make_plan, plant

ASKED = "How much is it?"


async def plan_of(running: Stack, client: openai.AsyncOpenAI) -> tuple[str, bool]:
    """The plan of the row of a new call, and whether it is billed three times its cost."""
    raw = await client.embeddings.with_raw_response.create(model="text-embedding-3-small", input=ASKED * 100)
    connection = await asyncpg.connect(running.env["DATABASE_URL"])
    try:
        async with asyncio.timeout(120):
            while True:
                row = await connection.fetchrow(
                    "select plan_version, billed_usd = 3 * cost_usd as triple from openai_usage where id = $1::uuid",
                    raw.headers["x-gateway-event-id"],
                )
                if row is not None:
                    return row["plan_version"], row["triple"]
                await asyncio.sleep(0.05)
    finally:
        await connection.close()


@pytest.mark.long
async def test_a_running_proxy_bills_by_a_plan_that_was_made_meanwhile(running: Stack) -> None:
    made = await asyncio.to_thread(running.make_key, f"{uuid4().hex}@example.com")
    async with openai.AsyncOpenAI(base_url=running.base_url, api_key=made["key"], max_retries=0) as client:
        assert await plan_of(running, client) == ("markup:1", False)
        pool = await open_pool(running.env["DATABASE_URL"], connections_max=1)
        name = f"p{uuid4().hex}"
        await plant(pool, make_plan(name, "3", user_id=made["user_id"]))
        await pool.close()
        async with asyncio.timeout(120):
            while (found := await plan_of(running, client))[0] == "markup:1":
                await asyncio.sleep(0.5)
    assert found == (f"{name}@1", True)
