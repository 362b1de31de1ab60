"""What is over is freed at once: no refused, aborted or cut request waits for the garbage collector, which looks
rarely (`calm_gc`), while each may hold megabytes.
"""

import asyncio
import gc
import socket
import weakref
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp.base_protocol import BaseProtocol

from gateway.http.errors import as_refusal
from gateway.kit.errors import ApiError, DependencyDown
from tests.support.gateway import Stack
from tests.support.patience import ENDS_S, until_now

pytestmark = pytest.mark.long

MEGABYTE = 1 << 20
UPLOADS = 200


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Body:
    """Something that a frame holds."""


def rss_of(pid: int) -> int:
    """Bytes of memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def abort_upload(port: int, path: str, *fields: str) -> None:
    """Half of a body of two megabytes, then the connection is reset."""
    lines = [f"POST {path} HTTP/1.1", "Host: gateway", f"Content-Length: {2 * MEGABYTE}", *fields]
    with socket.create_connection(("127.0.0.1", port), timeout=ENDS_S) as connection:
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        try:
            connection.sendall(b" " * MEGABYTE)
        except ConnectionError:
            return  # it was refused before that
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")


@pytest.mark.parametrize("whose", ["a key's", "nobody's"])
def test_memory_stays_flat_over_aborted_uploads(running: Stack, whose: str) -> None:
    pid = running.pid_of("proxy")

    def abort(count: int) -> None:
        for _ in range(count):
            if whose == "nobody's":
                abort_upload(running.port, "/webhooks/daily")
            else:
                abort_upload(running.port, "/v1/chat/completions", f"Authorization: Bearer {running.key}")

    abort(20)
    before = rss_of(pid)
    abort(UPLOADS)
    # Each held its megabyte; a quarter of that may be what the allocator keeps. The proxy may be behind its clients.
    until_now(lambda: rss_of(pid) - before < UPLOADS * MEGABYTE / 4)


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("kind", ["refused", "away", "a bug", "chained"])
async def test_a_refusal_lets_its_request_go(kind: str) -> None:
    reader = aiohttp.StreamReader(BaseProtocol(asyncio.get_running_loop()), 2**16)
    seen: list[weakref.ref[Body]] = []

    async def fail(error: Exception) -> None:
        body = Body()
        seen.append(weakref.ref(body))
        if kind == "chained":
            reader.set_exception(error)
            try:
                await reader.readany()  # it keeps its exception, and the frame keeps the reader
            except Exception as broken:
                raise ApiError(499, "client_left", "gone") from broken
        raise error

    async def handle() -> None:
        request = reader  # noqa: F841  # as a handler has it
        try:
            await fail({"refused": ApiError(400, "x", "y"), "away": DependencyDown("redis", "x")}.get(kind, OSError()))
        except Exception as error:  # noqa: BLE001  # as the proxy's last resort
            refused = as_refusal(error, "id")
        assert refused.status

    await handle()
    assert seen[0]() is None
