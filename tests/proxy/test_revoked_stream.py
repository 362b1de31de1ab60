"""A key that is revoked while its answer streams: the client is told and let go, and the row is exact all the same."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import openai
import pytest

from gateway.embedded import Embedded
from tests.support.gateway import Stack, stack
from tests.support.whole_gateway import settled_rows

pytestmark = pytest.mark.long
ASKED: list[Any] = [{"role": "user", "content": "Hello"}]
CHUNKS = 80


@pytest.fixture
def quick(embedded: Embedded, database_url: str, tmp_path: Path) -> Iterator[Stack]:
    environ = {"FLUSH__STREAM": f"usage-{uuid4().hex}", "KEYS__FRESH_S": "0.3", "KEYS__RECHECK_S": "0.3"}
    with stack(tmp_path, database_url, embedded.redis_url, **environ) as made:
        made.start()
        yield made


async def read_and_be_disabled(running: Stack, api: str, seen: list[Any]) -> None:
    """Reads a stream into `seen`; after its third event the user is disabled."""
    async with openai.AsyncOpenAI(base_url=running.base_url, api_key=running.key, max_retries=0) as asking:
        if api == "chat":
            stream: Any = await asking.chat.completions.create(model="gpt-4o-mini", messages=ASKED, stream=True)
        else:
            stream = await asking.responses.create(model="gpt-4o-mini", input="Hello", stream=True)
        async for event in stream:
            seen.append(event)
            if len(seen) == 3:
                done = await asyncio.to_thread(running.command, "users", "disable", running.user_id)
                assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("api", ["chat", "responses"])
async def test_a_stream_ends_with_its_key(quick: Stack, api: str) -> None:
    running = quick
    running.control("openai", body={"interval_s": 0.1, "chunks": CHUNKS})
    seen: list[Any] = []
    with pytest.raises(openai.APIError) as raised:
        await read_and_be_disabled(running, api, seen)
    assert raised.value.code == "user_disabled"
    assert len(seen) < CHUNKS
    (row,) = await settled_rows(running.env["DATABASE_URL"], 1, within_s=30)
    (call,) = running.truth()
    assert row["evidence"] == "drained"
    assert row["completion_tokens"] == call["usage"]["completion_tokens" if api == "chat" else "output_tokens"]


async def test_an_outage_of_unkey_ends_no_stream(quick: Stack) -> None:
    running = quick
    running.control("openai", body={"interval_s": 0.1, "chunks": 30})
    async with openai.AsyncOpenAI(base_url=running.base_url, api_key=running.key, max_retries=0) as asking:
        stream = await asking.chat.completions.create(model="gpt-4o-mini", messages=ASKED, stream=True)
        running.control("unkey", body={"status": 503})
        chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices[0].finish_reason == "stop"
    (row,) = await settled_rows(running.env["DATABASE_URL"], 1)
    assert row["evidence"] == "reported"
