"""A key that is revoked while its answer streams: the client is told and let go, and the row is exact all the same."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import openai
import pytest
from aiohttp import ClientError, ClientSession, TCPConnector

from tests.support.gateway import Stack, stack
from tests.support.whole_gateway import settled_rows

pytestmark = pytest.mark.long
ASKED: list[Any] = [{"role": "user", "content": "Hello"}]
CHUNKS = 80


@pytest.fixture
def quick(redis_url: str, database_url: str, tmp_path: Path) -> Iterator[Stack]:
    environ = {"FLUSH__STREAM": f"usage-{uuid4().hex}", "KEYS__FRESH_S": "0.3", "KEYS__RECHECK_S": "0.3"}
    with stack(tmp_path, database_url, redis_url, **environ) as made:
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
    (row,) = await settled_rows(running.env["DATABASE_URL"], 1)
    (call,) = running.truth()
    assert row["evidence"] == "drained"
    assert row["completion_tokens"] == call["usage"]["completion_tokens" if api == "chat" else "output_tokens"]


async def test_a_command_is_heard_by_every_proxy_at_once(fresh_stack: Stack) -> None:
    """Nothing is looked at again by itself in this test: a key is fresh for an hour."""
    running = fresh_stack
    running.env.update({"KEYS__FRESH_S": "3600", "KEYS__RECHECK_S": "3600"})
    await asyncio.to_thread(running.start, workers=2)
    running.control("openai", body={"interval_s": 0.1, "chunks": 600})
    bob = running.make_key("bob@example.com")
    async with ClientSession(connector=TCPConnector(force_close=True)) as session:

        async def answers(key: str, calls: int = 40) -> set[int]:
            """How calls on connections of their own are answered: with so many, both proxies have some."""
            headers = {"Authorization": f"Bearer {key}"}
            asked = [session.get(f"{running.base_url}/models", headers=headers) for _ in range(calls)]
            return {one.status for one in await asyncio.gather(*asked)}

        assert await answers(running.key) == await answers(bob["key"]) == {200}
        seen: list[Any] = []
        reading = asyncio.create_task(read_to_the_end(running, seen))
        while len(seen) < 3 and not reading.done():
            await asyncio.sleep(0.02)
        for command, expected in (("disable", {401}), ("enable", {200}), ("revoke", {401})):
            done = await asyncio.to_thread(running.command, "keys", command, running.key_id)
            assert (done.returncode, await answers(running.key)) == (0, expected), command
            assert b"In effect: all 2 proxies have confirmed it." in done.stdout
            if command == "disable":
                assert await reading == "invalid_api_key"
        assert await answers(bob["key"]) == {200}
        # A proxy that is killed and started again remembers nothing, and asks.
        os.kill(running.pid_of("proxy"), signal.SIGKILL)
        done = await asyncio.to_thread(running.command, "keys", "revoke", bob["key_id"])
        assert done.returncode == 0
        while (found := await try_to(answers, bob["key"])) is None:
            await asyncio.sleep(0.05)
        assert found == {401}


async def read_to_the_end(running: Stack, seen: list[Any]) -> str | None:
    """Reads a stream into `seen`; the code of the error that ends it, None where none does."""
    async with openai.AsyncOpenAI(base_url=running.base_url, api_key=running.key, max_retries=0) as asking:
        stream = await asking.chat.completions.create(model="gpt-4o-mini", messages=ASKED, stream=True)
        try:
            async for event in stream:
                seen.append(event)  # noqa: PERF401  # whoever started this looks at it meanwhile
        except openai.APIError as error:
            return error.code
    return None


async def try_to(answers: Callable[[str], Awaitable[set[int]]], key: str) -> set[int] | None:
    """None where a connection met the proxy that was killed."""
    try:
        return await answers(key)
    except ClientError:
        return None


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
