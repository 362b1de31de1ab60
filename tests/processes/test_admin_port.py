"""Whoever reaches the admin port cannot use up the files of the parent, nor keep others from it."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from gateway.processes import admin

PER_ADDRESS = admin.CONNECTIONS_MAX * 3 // 4


@pytest.fixture
async def served() -> AsyncIterator[tuple[admin.AdminServer, int]]:
    server = admin.handler(admin.Board(monotonic=time.monotonic))
    runner = web.ServerRunner(server)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield server, runner.addresses[0][1]
    await runner.cleanup()


async def health(port: int, address: str) -> int:
    connector = aiohttp.TCPConnector(local_addr=(address, 0))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(f"http://127.0.0.1:{port}/healthz") as answer,
    ):
        return answer.status


async def close(ends: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]) -> None:
    for _, writer in ends:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_one_address_leaves_room_for_others(served: tuple[admin.AdminServer, int]) -> None:
    _, port = served
    held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(PER_ADDRESS)]
    held.append(await asyncio.open_connection("127.0.0.1", port))
    held[-1][1].write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await held[-1][0].read()).startswith(b"HTTP/1.1 503 ")  # and the connection is closed
    assert await health(port, "127.0.0.9") == 200
    await close(held)


async def test_who_says_nothing_is_let_go(served: tuple[admin.AdminServer, int]) -> None:
    server, port = served
    ends = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
    ends[1][1].write(b"GET /healthz HT")
    assert await health(port, "127.0.0.1") == 200
    server.clients.look(asyncio.get_running_loop().time() + server.clients.settings.head_s + 1)
    assert await ends[0][0].read() == b""
    assert (await ends[1][0].read()).startswith(b"HTTP/1.1 408 ")
    await close(ends)
