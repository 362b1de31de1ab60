"""A proxy that has just started knows no key: customers behind one balancer get in, a flood of wrong keys does not."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from uuid import uuid4

import aiohttp
import pytest

from gateway.access.line import AT_ONCE
from tests.support.gateway import Stack, stack

GOOD: Final = 1500
WRONG: Final = 10_000
WRONG_AT_ONCE: Final = 400
SHARE: Final = 600
"""`keys.misses_per_minute` where nobody sets it."""


@pytest.fixture
def cold(redis_url: str, database_url: str, tmp_path: Path) -> Iterator[Stack]:
    environ = {
        "FLUSH__STREAM": f"usage-{uuid4().hex}",
        "KEYS__REQUIRE_ROW": "false",
        "CONNECTIONS__PER_ADDRESS_MAX": "6000",
    }
    with stack(tmp_path, database_url, redis_url, **environ) as made:
        made.prepare()
        yield made


def serve(running: Stack) -> None:
    running.serve = running.run("serve", "--workers", "1")
    running.serve.wait_for("serving http")


async def status_of(running: Stack, session: aiohttp.ClientSession, key: str) -> int:
    """Of a free call with this key."""
    async with session.get(f"{running.base_url}/models", headers={"Authorization": f"Bearer {key}"}) as answer:
        await answer.read()
        return answer.status


def questions(running: Stack) -> int:
    count: int = running.control("unkey", "GET", "/calls")["calls"].get("keys.verifyKey", 0)
    return count


@pytest.mark.long
async def test_valid_keys_get_in_at_once_while_wrong_ones_from_their_address_stay_bounded(cold: Stack) -> None:
    good = [f"good_{uuid4().hex}" for _ in range(GOOD)]
    for key in good:
        await asyncio.to_thread(cold.control, "unkey", "POST", "/keys", {"key": key, "external_id": cold.user_id})
    await asyncio.to_thread(serve, cold)
    wrong = iter([f"wrong_{uuid4().hex}" for _ in range(WRONG)])
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=600)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def guess() -> list[int]:
            return [await status_of(cold, session, key) for key in wrong]

        guessing = [asyncio.create_task(guess()) for _ in range(WRONG_AT_ONCE)]
        told = Counter(await asyncio.gather(*(status_of(cold, session, key) for key in good)))
        refused = Counter(status for each in await asyncio.gather(*guessing) for status in each)
        assert told == {200: GOOD}, told
        assert refused.total() == WRONG
        assert set(refused) <= {401, 429}, refused
        # The flood goes on alone: what it may ask for in this minute is used up.
        before = questions(cold)
        alone = Counter([await status_of(cold, session, f"wrong_{uuid4().hex}") for _ in range(100)])
        assert questions(cold) - before == alone[401]
        assert await status_of(cold, session, good[0]) == 200


@pytest.mark.long
async def test_wrong_keys_alone_reach_unkey_no_oftener_than_their_share(cold: Stack) -> None:
    await asyncio.to_thread(serve, cold)
    before = questions(cold)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        keys = [f"wrong_{uuid4().hex}" for _ in range(1500)]
        told = Counter(await asyncio.gather(*(status_of(cold, session, key) for key in keys)))
    asked = questions(cold) - before
    assert told == {401: asked, 429: 1500 - asked}
    assert SHARE <= asked < 2 * (SHARE + AT_ONCE)  # on a slow machine the next minute begins meanwhile
