"""deploy/Caddyfile as it is, but for addresses: streams come piece by piece, and no client names its own address."""

import asyncio
import io
import os
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import aiohttp
import pytest
from aiohttp import web

from tests.deploy.tools import FOLDER
from tests.support.certificates import server_context
from tests.support.patience import LOOK_S, until
from tests.support.servers import free_ports
from tests.support.source import TOP

CADDY: Final = shutil.which("caddy") or shutil.which("caddy", path=FOLDER / "caddy" / "usr" / "bin")
PIECES: Final = 5
ENDS_S: Final = 30.0
"""Only ever waited for in full when something is broken."""

pytestmark = pytest.mark.skipif(CADDY is None, reason="Caddy is neither installed nor fetched by `make check-deploy`")


class Upstream:
    """In the gateway's place: sends the next piece only when the client has the one before."""

    def __init__(self) -> None:
        self.got = asyncio.Semaphore(0)
        self.forwarded: list[str | None] = []
        self.bodies: list[int] = []
        self.left = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """A stream of pieces."""
        self.forwarded.append(request.headers.get("X-Forwarded-For"))
        self.bodies.append(len(await request.read()))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for number in range(PIECES):
            await response.write(f"data: {number}\n\n".encode())
            if not await self._taken(request):
                self.left += 1
                break
        return response

    async def _taken(self, request: web.Request) -> bool:
        """Whether the client has the piece; False when it has left."""
        async with asyncio.timeout(ENDS_S):
            while self.got.locked():
                if request.transport is None or request.transport.is_closing():
                    return False
                await asyncio.sleep(LOOK_S)
        return await self.got.acquire()


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


@pytest.fixture
async def session(upstream: Upstream, tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    first = free_ports(2)
    https, http = first, first + 1
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/v1/chat/completions", upstream.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", http).start()
    _, trusted = server_context(tmp_path)
    text = (TOP / "deploy" / "Caddyfile").read_text()
    for said, here in (
        ("gateway.example.com {", f"https://127.0.0.1:{https} {{\n\ttls {trusted} {tmp_path / 'key.pem'}"),
        ("127.0.0.1:8080", f"127.0.0.1:{http}"),
        ("{\n\tservers", "{\n\tadmin off\n\tauto_https disable_redirects\n\tservers"),
    ):
        assert text.count(said) == 1
        text = text.replace(said, here)
    (tmp_path / "Caddyfile").write_text(text)
    assert CADDY
    home = {name: str(tmp_path) for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
    with (tmp_path / "log").open("wb") as log:
        caddy = await asyncio.create_subprocess_exec(
            CADDY, "run", "--config", str(tmp_path / "Caddyfile"), "--adapter", "caddyfile",
            env=os.environ | home, stdout=log, stderr=log,
        )  # fmt: skip
    await until(lambda: caddy.returncode is not None or listens(https))
    assert caddy.returncode is None, (tmp_path / "log").read_text()
    timeout = aiohttp.ClientTimeout(total=ENDS_S)
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=str(trusted)))
    try:
        async with aiohttp.ClientSession(f"https://127.0.0.1:{https}", connector=connector, timeout=timeout) as made:
            yield made
    finally:
        caddy.terminate()
        await asyncio.wait_for(caddy.wait(), ENDS_S)
        await runner.cleanup()


def listens(port: int) -> bool:
    """Whether Caddy takes connections yet."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_a_stream_comes_piece_by_piece(session: aiohttp.ClientSession, upstream: Upstream) -> None:
    forged = {"X-Forwarded-For": "192.0.2.1"}
    body = b"x" * 20_000_000
    async with session.post("/v1/chat/completions", data=io.BytesIO(body), headers=forged) as response:
        assert response.status == 200
        for number in range(PIECES):
            # If Caddy kept a piece, the next one would never be sent.
            assert await response.content.readuntil(b"\n\n") == f"data: {number}\n\n".encode()
            upstream.got.release()
        assert await response.content.read() == b""
    assert upstream.bodies == [len(body)]
    assert upstream.forwarded == ["127.0.0.1"]


async def test_the_gateway_sees_that_a_client_has_left(session: aiohttp.ClientSession, upstream: Upstream) -> None:
    response = await session.post("/v1/chat/completions", data=b"{}")
    assert await response.content.readuntil(b"\n\n") == b"data: 0\n\n"
    response.close()
    await until(lambda: upstream.left == 1)
