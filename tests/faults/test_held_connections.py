"""Uploads that are given up, bodies that do not come and connections that say nothing: the proxy stays small and ready,
and serves everybody else meanwhile."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from uuid import uuid4

import aiohttp
import pytest

from gateway.embedded import Embedded
from tests.support.gateway import Stack, stack

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
    return (await asyncio.to_thread(running.metrics)).get((name, labels), 0.0)


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
    assert await figure(held, "gateway_body_bytes_held") == 0
    assert await figure(held, "gateway_connections_late_total", frozenset({("what", "body")})) >= 3 * SLOW
    assert await figure(held, "gateway_connections_late_total", frozenset({("what", "head")})) >= 3 * IDLE
