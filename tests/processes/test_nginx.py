"""deploy/nginx.conf as it is, but for ports and paths: TLS, streams in pieces, and whose address counts."""

import asyncio
import contextlib
import io
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from tests.support.certificates import server_context
from tests.support.gateway import Stack
from tests.support.hostile import CHAT, DONE, STREAM, chunked
from tests.support.servers import free_ports
from tests.support.source import TOP

NGINX: Final = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
CONFIG: Final = TOP / "deploy" / "nginx.conf"
ENDS_S: Final = 60.0
"""Only ever waited for in full when something is broken."""
MISSES: Final = 3

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


class Behind:
    """A gateway behind nginx, and the port at which it expects OpenAI."""

    def __init__(self, https: int, openai: int, trusted: Path) -> None:
        self.url: Final = f"https://127.0.0.1:{https}/v1"
        self.openai: Final = openai
        self.tls: Final = ssl.create_default_context(cafile=trusted)

    def session(self, address: str = "127.0.0.1") -> aiohttp.ClientSession:
        """A client at this address, which trusts the certificate."""
        connector = aiohttp.TCPConnector(ssl=self.tls, local_addr=(address, 0))
        return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=ENDS_S))


@pytest.fixture(scope="module")
def behind(running: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    folder = tmp_path_factory.mktemp("nginx")
    first = free_ports(3)
    https, http, openai = range(first, first + 3)
    env = running.env | {
        "GATEWAY_PORT": str(http),
        "GATEWAY_ADMIN_PORT": "0",
        "GATEWAY_DATA_DIR": str(folder / "data"),
        "OPENAI_BASE_URL": f"http://127.0.0.1:{openai}/v1",
        "CONNECTIONS__TRUSTED_PROXIES": "127.0.0.1/32",
        "KEYS__MISSES_PER_MINUTE": str(MISSES),
    }
    kept = dict(running.env)
    running.env.update(env)
    try:
        serve = running.run("serve", "--no-background")
    finally:
        running.env.clear()
        running.env.update(kept)
    serve.wait_for("serving http")
    _, trusted = server_context(folder)
    (folder / "nginx.conf").write_text(_main(folder, _site(folder, https, http, trusted)))
    assert NGINX
    process = subprocess.Popen([NGINX, "-p", folder, "-c", folder / "nginx.conf", "-e", folder / "error.log"])
    try:
        yield Behind(https, openai, trusted)
    finally:
        process.terminate()
        process.wait(ENDS_S)
        serve.stop()


def _site(folder: Path, https: int, http: int, trusted: Path) -> str:
    text = CONFIG.read_text()
    for said, here in (
        ("127.0.0.1:8080", f"127.0.0.1:{http}"),
        ("listen 443 ssl", f"listen 127.0.0.1:{https} ssl"),
        ("/etc/nginx/gateway.crt", str(trusted)),
        ("/etc/nginx/gateway.key", str(folder / "key.pem")),
    ):
        assert text.count(said) == 1
        text = text.replace(said, here)
    return text


def _main(folder: Path, site: str) -> str:
    """What an installation of nginx has around its sites."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "\n".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    main = f"daemon off; worker_processes 1; pid {folder}/nginx.pid; events {{ worker_connections 256; }}"
    return f"{main}\nhttp {{ access_log off;\n{temporary}\n{site}\n}}\n"


async def _ready(session: aiohttp.ClientSession, url: str) -> None:
    async with asyncio.timeout(ENDS_S):
        while True:
            with contextlib.suppress(aiohttp.ClientConnectorError):
                async with session.get(url) as response:
                    assert response.status in (200, 401)
                    return
            await asyncio.sleep(0.05)


async def test_a_stream_comes_piece_by_piece_over_tls(running: Stack, behind: Behind) -> None:
    first_was_read = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Sends the rest only when the client has the first piece."""
        await reader.readuntil(b"\r\n\r\n")
        whole = chunked(*STREAM, DONE, end=True)
        head = len(chunked(STREAM[0], end=False))
        writer.write(whole[:head])
        await writer.drain()
        await asyncio.wait_for(first_was_read.wait(), ENDS_S)
        writer.write(whole[head:])
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", behind.openai)
    try:
        async with behind.session() as session:
            await _ready(session, behind.url.replace("/v1", "/healthz"))
            headers = {"Authorization": f"Bearer {running.key}"}
            async with session.post(
                f"{behind.url}/chat/completions", json={**CHAT, "stream": True}, headers=headers
            ) as response:
                assert response.status == 200
                got = await response.content.readany()
                first_was_read.set()
                assert DONE not in got
                async for piece in response.content.iter_any():
                    got += piece
        assert got.endswith(DONE)
    finally:
        listening.close()


async def test_the_address_that_counts_is_the_client_s_and_not_what_it_claims(behind: Behind) -> None:
    async def status(session: aiohttp.ClientSession, key: str, claim: str) -> int:
        headers = {"Authorization": f"Bearer {key}", "X-Forwarded-For": claim}
        async with session.get(f"{behind.url}/models", headers=headers) as response:
            return response.status

    async with behind.session() as session:
        await _ready(session, behind.url.replace("/v1", "/healthz"))
    async with behind.session("127.0.0.2") as one, behind.session("127.0.0.3") as other:
        tries = [await status(one, f"unknown_{number}", f"192.0.2.{number}") for number in range(MISSES + 1)]
        assert tries == [401] * MISSES + [429]
        assert await status(other, "unknown_other", "127.0.0.2") == 401


async def test_a_body_above_the_bound_is_answered_as_openai_does(running: Stack, behind: Behind) -> None:
    async with behind.session() as session:
        await _ready(session, behind.url.replace("/v1", "/healthz"))
        headers = {
            "Authorization": f"Bearer {running.key}", "Content-Type": "application/json", "Expect": "100-continue"
        }  # fmt: skip
        too_long = io.BytesIO(b" " * (33 * 1024 * 1024))
        async with session.post(f"{behind.url}/chat/completions", data=too_long, headers=headers) as response:
            assert response.status == 413
            assert "error" in await response.json()
