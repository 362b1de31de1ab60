"""More streams than descriptors: the soft limit does not matter, and at the hard one a call is refused, never cut."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from uuid import uuid4

import aiohttp
import pytest

from tests.support.gateway import Stack, stack
from tests.support.patience import ENDS_S, LOOK_S
from tests.support.servers import free_port
from tests.support.whole_gateway import settled_rows

STREAMS: Final = 1200
OPENING: Final = 50
"""Of them, those that are opened at the same time: a client must not be so slow that it looks as if it had nothing to
ask."""
LOW: Final = 1024
BODY: Final = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "user", "content": "Hello"}],
    "stream": True,
    "stream_options": {"include_usage": True},
}
# Shapes of chunks as in tests/golden/streams.
HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
    b"Connection: close\r\n\r\n"  # it does close: a call that was sent on it meanwhile would be cut
)


def event(choices: Sequence[object], usage: object, number: int) -> bytes:
    """One chunk of the answer number `number`."""
    told = {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion.chunk",
        "created": 1_760_000_000,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": choices,
        "usage": usage,
    }
    return chunk(b"data: " + json.dumps(told).encode() + b"\n\n")


def chunk(data: bytes) -> bytes:
    """As HTTP sends it."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Upstream:
    """OpenAI, whose first `held` answers end when the test says so, and all others at once."""

    def __init__(self, held: int) -> None:
        self.begun = 0
        self._held: Final = held
        self.end: Final = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.partition(b":")[2]))
        self.begun += 1
        number = self.begun
        writer.write(HEAD + event([{"index": 0, "delta": {"role": "assistant", "content": "Hi"}}], None, number))
        if number <= self._held:
            await self.end.wait()
        usage = {"prompt_tokens": 8, "completion_tokens": 1, "total_tokens": 9}
        done = [{"index": 0, "delta": {}, "finish_reason": "stop"}]
        writer.write(event(done, None, number) + event([], usage, number) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        writer.close()


@asynccontextmanager
async def openai(port: int) -> AsyncIterator[Upstream]:
    made = Upstream(STREAMS)
    async with await asyncio.start_server(made.serve, "127.0.0.1", port, backlog=1024):
        yield made


@pytest.fixture
def limited(redis_url: str, database_url: str, tmp_path: Path) -> Iterator[Stack]:
    environ = {
        "FLUSH__STREAM": f"usage-{uuid4().hex}",
        "LIMITS__PROXY_CONCURRENT": "0",
        "CONNECTIONS__TRUSTED_PROXIES": "127.0.0.1",
    }
    with stack(tmp_path, database_url, redis_url, **environ) as made:
        made.prepare()
        made.env["OPENAI_BASE_URL"] = f"http://127.0.0.1:{free_port()}/v1"
        yield made


def port_of_openai(running: Stack) -> int:
    port = urlsplit(running.env["OPENAI_BASE_URL"]).port
    assert port is not None
    return port


def serve(running: Stack, files: str) -> None:
    running.serve = running.run(files, "serve", "--workers", "1", module="tests.support.few_files")
    running.serve.wait_for("serving http")


async def is_ready(running: Stack) -> bool:
    async with aiohttp.request("GET", f"http://127.0.0.1:{running.admin_port}/readyz") as answer:
        return answer.status == 200


async def run_streams(running: Stack, upstream: Upstream) -> Counter[int]:
    """All of them at the same time; the statuses that they got. Each one that was let in must be whole."""
    opening, told = asyncio.Semaphore(OPENING), Counter[int]()
    headers = {"Authorization": f"Bearer {running.key}"}
    timeout = aiohttp.ClientTimeout(total=None)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as session:

        async def one() -> None:
            async with opening:
                answer = await session.post(f"{running.base_url}/chat/completions", json=BODY)
                told[answer.status] += 1
            if answer.status == 200:
                assert (await answer.read()).endswith(b"data: [DONE]\n\n")
                return
            assert answer.headers["Retry-After"] == "2"
            assert (await answer.json())["error"]["code"] == "too_many_connections"

        async with asyncio.TaskGroup() as streams:
            for _ in range(STREAMS):
                streams.create_task(one())
            while told.total() < STREAMS:
                await asyncio.sleep(0.05)
            try:
                assert told[200] == upstream.begun
                async with asyncio.timeout(ENDS_S):  # the parent looks at a proxy now and then
                    while await is_ready(running) is not (told[200] == STREAMS):
                        await asyncio.sleep(LOOK_S)
            finally:
                upstream.end.set()
    return told


@pytest.mark.long
async def test_a_low_soft_limit_does_not_matter(limited: Stack) -> None:
    async with openai(port_of_openai(limited)) as upstream:
        await asyncio.to_thread(serve, limited, f"{LOW}:8192")
        assert await run_streams(limited, upstream) == {200: STREAMS}
    rows = await settled_rows(limited.env["DATABASE_URL"], STREAMS)
    assert {row["evidence"] for row in rows} == {"reported"}
    figures = limited.metrics()
    assert figures["gateway_process_files_max", frozenset({("process", "proxy-0")})] == 8192
    assert figures["gateway_process_files_max", frozenset({("process", "keeper")})] == 8192
    assert 0 < figures["gateway_process_files", frozenset({("process", "keeper")})] < 100


@pytest.mark.long
async def test_at_a_low_hard_limit_calls_are_refused_and_none_is_cut(limited: Stack) -> None:
    async with openai(port_of_openai(limited)) as upstream:
        await asyncio.to_thread(serve, limited, str(LOW))
        told = await run_streams(limited, upstream)
    assert set(told) == {200, 503}
    assert told[200] == (LOW - 256) // 2
    rows = await settled_rows(limited.env["DATABASE_URL"], told[200])
    assert {row["evidence"] for row in rows} == {"reported"}
    async with asyncio.timeout(60):
        while not await is_ready(limited):
            await asyncio.sleep(0.2)
    output = limited.serve.output()
    assert "Too many open files" not in output
    assert "upstream_unreachable" not in output
