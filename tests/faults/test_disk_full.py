"""A full disk under a whole gateway: 503 before anything is sent, what runs settles, and it recovers by itself."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import aiohttp
import pytest

from tests.journal.test_full_disk import fill, small_disk
from tests.support.gateway import Stack, stack
from tests.support.patience import ENDS_S
from tests.support.whole_gateway import settled_rows

__all__ = ["small_disk"]
BODY = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture
def on_small_disk(small_disk: Path, redis_url: str, database_url: str, tmp_path: Path) -> Iterator[Stack]:
    environ = {
        "GATEWAY_DATA_DIR": str(small_disk),
        "JOURNAL__RESERVE_BYTES": "262144",
        "FLUSH__STREAM": f"usage-{uuid4().hex}",
    }
    with stack(tmp_path, database_url, redis_url, **environ) as made:
        yield made


async def test_a_full_disk(on_small_disk: Stack, small_disk: Path) -> None:
    running = on_small_disk
    await asyncio.to_thread(running.start)
    url, root = f"{running.base_url}/chat/completions", running.base_url.removesuffix("/v1")
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {running.key}"}) as session:

        async def status(path: str) -> int:
            async with session.get(root + path) as got:
                return got.status

        async with session.post(url, json=BODY) as got:
            assert got.status == 200
        running.control("openai", body={"interval_s": 0.05, "chunks": 40})
        streams = [await session.post(url, json={**BODY, "stream": True}) for _ in range(5)]
        running.control("openai", "DELETE")
        theirs = fill(small_disk)
        refused = 0
        for _ in range(40):  # the first may be let in: its commit finds the disk full and opens the reserve
            async with session.post(url, json=BODY) as got:
                if got.status == 503:
                    refused += 1
                    assert (await got.json())["error"]["code"] == "journal_unavailable"
        assert refused >= 39
        assert await status("/readyz") == 503
        bodies = [await stream.read() for stream in streams]
        assert all(body.endswith(b"data: [DONE]\n\n") for body in bodies)
        sent = len(running.truth())
        theirs.unlink()
        async with asyncio.timeout(ENDS_S):
            while await status("/readyz") != 200:
                await asyncio.sleep(0.1)
        async with session.post(url, json=BODY) as got:
            assert got.status == 200
    truth = running.truth()
    assert len(truth) == sent + 1 == 47 - refused  # what was refused never reached OpenAI
    rows = await settled_rows(running.env["DATABASE_URL"], len(truth))
    assert {row["evidence"] for row in rows} == {"reported"}
    assert {str(row["id"]) for row in rows} == {call["client_request_id"] for call in truth}
