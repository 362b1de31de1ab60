"""Uploads that are given up, bodies that do not come and connections that say nothing: the proxy stays small and ready,
and serves everybody else meanwhile."""

import asyncio
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from uuid import uuid4

import aiohttp
import pytest

from gateway.embedded import Embedded
from tests.support.gateway import Stack, stack
from tests.support.patience import ENDS_S, until
from tests.support.whole_gateway import row_of

UPLOADS: Final = 500
SLOW: Final = 1000
IDLE: Final = 2000
GROWTH_BYTES_MAX: Final = 64 * 1024 * 1024
PROXY: Final = frozenset({("process", "proxy-0")})
Ends = list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]


@pytest.fixture
def held(embedded: Embedded, database_url: str, tmp_path: Path) -> Iterator[Stack]:
    environ = {
        "FLUSH__STREAM": f"usage-{uuid4().hex}",
        "CONNECTIONS__PER_ADDRESS_MAX": "6000",
        "CONNECTIONS__BODY_S": "5",
        "CONNECTIONS__HEAD_S": "5",
    }
    with stack(tmp_path, database_url, embedded.redis_url, **environ) as made:
        yield made


async def open_many(running: Stack, count: int, data: bytes) -> Ends:
    """So many connections that have sent this."""
    ends: Ends = []
    for _ in range(0, count, 50):
        more = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", running.port) for _ in range(50)))
        for _, writer in more:
            writer.write(data)
        ends += more
    await asyncio.gather(*(writer.drain() for _, writer in ends))
    return ends


def close(ends: Ends) -> None:
    for _, writer in ends:
        writer.transport.abort()


async def figure(running: Stack, name: str, labels: frozenset[tuple[str, str]] = frozenset()) -> float:
    return await asyncio.to_thread(figure_now, running, name, labels)


def figure_now(running: Stack, name: str, labels: frozenset[tuple[str, str]] = frozenset()) -> float:
    return running.metrics().get((name, labels), 0.0)


async def hold(running: Stack, session: aiohttp.ClientSession, other: str) -> None:
    """One round of all three, with calls of another customer between."""
    head = f"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {running.key}\r\n"
    begun = f"{head}Content-Length: 9000000\r\n\r\n".encode()
    for _ in range(UPLOADS // 50):
        close(await open_many(running, 50, begun + bytes(256 * 1024)))
    held = await open_many(running, SLOW, begun + b"{")
    held += await open_many(running, IDLE, b"")
    body = {"model": "text-embedding-3-small", "input": "Hello"}
    for _ in range(20):
        headers = {"Authorization": f"Bearer {other}"}
        async with session.post(f"{running.base_url}/embeddings", json=body, headers=headers) as answer:
            assert answer.status == 200
        async with session.get(f"http://127.0.0.1:{running.admin_port}/readyz") as answer:
            assert answer.status == 200
    async with asyncio.timeout(120):  # nobody closes them but the gateway
        await asyncio.gather(*(reader.read() for reader, _ in held), return_exceptions=True)
        while await figure(running, "gateway_connections") > 10:
            await asyncio.sleep(0.2)
    close(held)


@pytest.mark.long
async def test_memory_is_flat_and_others_are_served(held: Stack) -> None:
    await asyncio.to_thread(held.start)
    other = held.make_key("other@example.com")["key"]
    sizes = []
    async with aiohttp.ClientSession() as session:
        for _ in range(3):
            await hold(held, session, other)
            await asyncio.sleep(2)  # the next status
            sizes.append(await figure(held, "gateway_process_resident_bytes", PROXY))
    print("resident bytes after each round:", sizes)
    assert sizes[-1] - sizes[0] < GROWTH_BYTES_MAX
    await until(lambda: figure_now(held, "gateway_body_bytes_held") == 0)
    for what, count in (("body", 3 * SLOW), ("head", 3 * IDLE)):
        assert await figure(held, "gateway_connections_late_total", frozenset({("what", what)})) >= count


FILES: Final = 400
ROOM: Final = (FILES - 256) // 2
"""Connections that a proxy with so many files has room for."""


async def call_from(running: Stack, address: str) -> str:
    """A call from this address that is answered; its event id."""
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
    connector = aiohttp.TCPConnector(local_addr=(address, 0))
    headers = {"Authorization": f"Bearer {running.key}"}
    url = f"{running.base_url}/chat/completions"
    async with (
        aiohttp.ClientSession(connector=connector, headers=headers) as session,
        session.post(url, json=body) as answer,
    ):
        assert answer.status == 200, await answer.text()
        return str(answer.headers["x-gateway-event-id"])


async def is_ready(running: Stack) -> bool:
    async with aiohttp.request("GET", f"http://127.0.0.1:{running.admin_port}/readyz") as answer:
        return answer.status == 200


async def until_ready(running: Stack, *, is_so: bool) -> None:
    async with asyncio.timeout(ENDS_S):
        while await is_ready(running) is not is_so:
            await asyncio.sleep(0.1)


@pytest.mark.long
async def test_a_flood_leaves_files_for_the_journal_and_openai(fresh_stack: Stack) -> None:
    running = fresh_stack
    await asyncio.to_thread(running.prepare)
    running.serve = running.run(str(FILES), "serve", module="tests.support.few_files")
    await asyncio.to_thread(running.serve.wait_for, "serving http")
    flood: Ends = []
    for _ in range(10):  # in bursts, as from one address
        flood += await open_many(running, 50, b"")
    assert await is_ready(running)
    event_id = await call_from(running, "127.0.0.9")
    assert (await row_of(running, event_id))["evidence"] == "reported"
    await until(lambda: figure_now(running, "gateway_connections") > 0)  # as of a status after the flood
    assert await figure(running, "gateway_connections_max") == ROOM
    assert 0 < await figure(running, "gateway_connections") <= ROOM
    assert await figure(running, "gateway_connections_refused_total", frozenset({("reason", "address")})) > 0
    close(flood)
    async with asyncio.timeout(120):
        while await figure(running, "gateway_connections") > 1:
            await asyncio.sleep(0.2)
    await call_from(running, "127.0.0.1")


@pytest.mark.long
async def test_a_proxy_that_had_no_file_left_is_ready_again(fresh_stack: Stack) -> None:
    running = fresh_stack
    await asyncio.to_thread(running.start)
    proxy = running.pid_of("proxy")
    await call_from(running, "127.0.0.1")
    was = resource.prlimit(proxy, resource.RLIMIT_NOFILE)
    held = await open_many(running, 50, b"")
    used = max(map(int, os.listdir(f"/proc/{proxy}/fd"))) + 1
    resource.prlimit(proxy, resource.RLIMIT_NOFILE, (used, was[1]))
    try:
        held += await open_many(running, 50, b"")  # the kernel takes them; nobody can accept them
        before = await figure(running, "gateway_process_cpu_seconds_total", PROXY)
        # It goes on telling how it is, and why it takes nobody.
        await until(lambda: figure_now(running, "gateway_process_cpu_seconds_total", PROXY) > before)
        await until_ready(running, is_so=False)
    finally:
        resource.prlimit(proxy, resource.RLIMIT_NOFILE, was)
    event_id = await call_from(running, "127.0.0.1")
    assert (await row_of(running, event_id))["evidence"] == "reported"
    await until_ready(running, is_so=True)
    close(held)
    assert running.pid_of("proxy") == proxy
