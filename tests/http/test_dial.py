"""The way to OpenAI: an address that swallows everything, a proxy that opens tunnels, an end that is gone."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from gateway.config.settings import EgressSettings, Settings
from gateway.http.dial import USER_TIMEOUT_MS, Dialer
from gateway.http.outbound import vendor_session
from gateway.kit.sockets import TCP_OPTIONS
from gateway.openai.upstream import NotSent, Upstream
from tests.support.certificates import server_context
from tests.support.servers import free_port

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


@contextlib.asynccontextmanager
async def serving(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """The port at which `serve` gets every connection; all of them have ended when the context has."""
    tasks = set()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        try:
            await serve(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    server = await asyncio.start_server(one, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.gather(*filter(None, tasks))


async def answer_ok(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(OK)


@contextlib.contextmanager
def swallowing(port: int) -> Any:
    """127.0.0.2 with a queue that is full, so that the kernel drops every further SYN."""
    listening = socket.socket()
    listening.bind(("127.0.0.2", port))
    listening.listen(0)
    queued = []
    for _ in range(4):
        waiting = socket.socket()
        waiting.setblocking(False)
        waiting.connect_ex(("127.0.0.2", port))
        queued.append(waiting)
    try:
        yield
    finally:
        for each in (*queued, listening):
            each.close()


async def test_an_address_that_swallows_everything_does_not_stand_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    async def two_addresses(_: str, port: int, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in ("127.0.0.2", "127.0.0.1")]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", two_addresses)
    async with serving(answer_ok) as port:
        with swallowing(port):
            upstream = Upstream(f"http://two.example:{port}/v1", "secret", connect_s=10, first_byte_s=5)
            answer = await upstream.send("GET", "/models", {}, None)
            assert answer.status == 200
            answer.close()
            await upstream.close()


async def test_an_end_that_is_gone_is_noticed() -> None:
    async with serving(answer_ok) as port:
        connection = await Dialer("127.0.0.1", port, None, None).connect()
        assert connection.transport is not None
        sock = connection.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            wanted = TCP_OPTIONS | {socket.TCP_USER_TIMEOUT: USER_TIMEOUT_MS}
            assert {option: sock.getsockopt(socket.IPPROTO_TCP, option) for option in TCP_OPTIONS} == wanted
        connection.close()


class Proxy:
    """A proxy that opens tunnels, unless it has an `answer` to give instead; it keeps what passed."""

    def __init__(self, answer: bytes = b"") -> None:
        self.answer = answer
        self.heads: list[bytes] = []
        self.passed = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        if self.answer:
            writer.write(self.answer)
            return
        host, _, port = head.split(b" ")[1].partition(b":")
        there, back = await asyncio.open_connection(host.decode(), int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\nVia: proxy\r\n\r\n")
        await asyncio.gather(self._copy(reader, back), self._copy(there, writer))
        await back.wait_closed()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(65536):
                self.passed += piece
                writer.write(piece)
        writer.close()


async def test_tls_runs_inside_the_tunnel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context, trusted = server_context(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    proxy = Proxy()
    async with serving(answer_ok, context) as port, serving(proxy.serve) as proxy_port:
        through = f"http://ann:p%40ss:%C3%A9@127.0.0.1:{proxy_port}"
        upstream = Upstream(f"https://127.0.0.1:{port}/v1", "SECRET", connect_s=10, first_byte_s=10, proxy=through)
        for _ in range(2):
            answer = await upstream.send("GET", "/models", {}, None)
            assert (answer.status, await answer.content.readany()) == (200, b"hi")
            answer.release()
        await upstream.close()
    assert len(proxy.heads) == 1
    assert (
        proxy.heads[0]
        == (
            f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            "Proxy-Authorization: Basic YW5uOnBAc3M6w6k=\r\n\r\n"
        ).encode()
    )
    assert proxy.passed
    assert b"SECRET" not in proxy.passed


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", "the proxy answered 407"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n<html>", "the proxy answered 403"),
        (b"HTTP/1.1 200 OK\r\n\r\nbytes that nobody has asked for", "the proxy answered 200"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "the proxy does not speak HTTP"),
        (b"HTTP/1.1 200", "the proxy gave no answer"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", "the proxy gave no answer"),
    ],
)
async def test_a_proxy_that_refuses_is_named_and_nothing_was_sent(answer: bytes, says: str) -> None:
    async with serving(Proxy(answer).serve) as port:
        through = f"http://ann:SECRET@127.0.0.1:{port}"
        upstream = Upstream("https://api.openai.com/v1", "k", connect_s=10, first_byte_s=10, proxy=through)
        with pytest.raises(NotSent) as caught:
            await upstream.send("POST", "/responses", {}, b"{}")
        assert caught.value.detail == says
        assert "SECRET" not in repr(caught.value)


async def test_a_proxy_that_is_away_is_not_sent() -> None:
    through = f"http://127.0.0.1:{free_port()}"
    upstream = Upstream("https://api.openai.com/v1", "k", connect_s=10, first_byte_s=10, proxy=through)
    with pytest.raises(NotSent):
        await upstream.send("POST", "/responses", {}, b"{}")


async def test_sessions_with_other_vendors_go_the_same_way(tmp_path: Path) -> None:
    context, trusted = server_context(tmp_path)
    proxy = Proxy()
    async with serving(answer_ok, context) as port, serving(proxy.serve) as proxy_port:
        url = f"https://127.0.0.1:{port}"
        settings = Settings(egress=EgressSettings(proxy=SecretStr(f"http://ann:p%40ss@127.0.0.1:{proxy_port}")))
        tls = ssl.create_default_context(cafile=trusted)
        async with vendor_session(settings, url) as session, session.get(url, ssl=tls) as answer:
            assert (answer.status, await answer.read()) == (200, b"hi")
    assert b"\r\nProxy-Authorization: Basic YW5uOnBAc3M=\r\n" in proxy.heads[0]
    assert b"p@ss" not in proxy.passed
