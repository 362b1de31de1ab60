"""Connections to OpenAI: kept alive, never trusted too far, and exact about whether a byte may have gone out."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiohttp
import pytest

from gateway.openai.upstream import NotSent, Unanswered, Upstream, UpstreamAnswer
from tests.support.patience import until
from tests.support.servers import free_port

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


class Server:
    """A raw server: `requests` is what it read, `connections` how many there were."""

    def __init__(self, *answers: bytes, close: bool = False) -> None:
        self.answers = list(answers)
        self.close = close
        self.requests: list[bytes] = []
        self.connections = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def listen(self) -> AsyncIterator[int]:
        """Serves on the port it gives; every connection has ended when the context has."""
        listening = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        try:
            yield listening.sockets[0].getsockname()[1]
        finally:
            listening.close()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=5)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while self.answers:
                self.requests.append(await reader.readuntil(b"\r\n\r\n"))
                answer = self.answers.pop(0)
                if answer == b"silence":
                    await reader.read()
                    break
                writer.write(answer)
                await writer.drain()
                if self.close:
                    break
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def upstream_to(server: Server, *, first_byte_s: float = 5) -> AsyncIterator[Upstream]:
    async with server.listen() as port:
        upstream = Upstream(f"http://127.0.0.1:{port}/v1", "secret", connect_s=2, first_byte_s=first_byte_s)
        try:
            yield upstream
        finally:
            await upstream.close()


async def read(answer: UpstreamAnswer) -> bytes:
    body = b""
    while piece := await answer.content.readany():
        body += piece
    answer.release()
    return body


async def test_a_connection_is_used_again() -> None:
    server = Server(OK, OK, OK)
    async with upstream_to(server) as upstream:
        for _ in range(3):
            assert await read(await upstream.send("GET", "/models", {"accept": "x"}, None)) == b"hi"
    assert server.connections == 1
    head = server.requests[0]
    assert head.startswith(b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nAuthorization: Bearer secret\r\n" in head
    assert b"\r\nAccept-Encoding: identity\r\n" in head
    assert b"\r\naccept: x\r\n" in head


@pytest.mark.parametrize(
    ("answer", "close", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", False, b"hi"),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", True, b"until the end"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", False, b""),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK, False, b"hi"),
    ],
)
async def test_bodies(answer: bytes, close: bool, body: bytes) -> None:
    async with upstream_to(Server(answer, close=close)) as upstream:
        assert await read(await upstream.send("POST", "/responses", {}, b"{}")) == body


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhi",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi",
    ],
)
async def test_a_cut_body_is_an_error(answer: bytes) -> None:
    async with upstream_to(Server(answer, close=True)) as upstream:
        with pytest.raises(aiohttp.ClientError):
            await read(await upstream.send("POST", "/responses", {}, b"{}"))


@pytest.mark.parametrize("answer", [b"", b"not http at all\r\n\r\n", b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n"])
async def test_no_answer_is_unanswered(answer: bytes) -> None:
    async with upstream_to(Server(answer, close=True)) as upstream:
        with pytest.raises(Unanswered):
            await upstream.send("POST", "/responses", {}, b"{}")


async def test_silence_is_unanswered() -> None:
    async with upstream_to(Server(b"silence"), first_byte_s=0.1) as upstream:
        with pytest.raises(Unanswered, match="Timeout"):
            await upstream.send("POST", "/responses", {}, b"{}")


async def test_no_connection_is_not_sent() -> None:
    upstream = Upstream(f"http://127.0.0.1:{free_port()}/v1", "secret", connect_s=1, first_byte_s=1)
    with pytest.raises(NotSent):
        await upstream.send("POST", "/responses", {}, b"{}")


async def test_broken_tls_is_not_sent() -> None:
    server = Server(b"plain text, no TLS")
    async with server.listen() as port:
        upstream = Upstream(f"https://127.0.0.1:{port}/v1", "secret", connect_s=1, first_byte_s=1)
        with pytest.raises(NotSent):
            await upstream.send("POST", "/responses", {}, b"{}")
    assert not any(b"secret" in request for request in server.requests)


@pytest.mark.parametrize("value", ["x\r\nAuthorization: other", "x\ny", "x\ry", "x\0y"])
async def test_a_header_cannot_break_out(value: str) -> None:
    server = Server(OK)
    async with upstream_to(server) as upstream:
        with pytest.raises(ValueError, match="line break"):
            await upstream.send("POST", "/responses", {"user-agent": value}, b"{}")
    assert server.connections == 0


async def test_a_connection_that_the_server_closed_is_not_used_again() -> None:
    server = Server(OK, OK, close=True)
    async with upstream_to(server) as upstream:
        await read(await upstream.send("GET", "/models", {}, None))
        await until(lambda: all(not connection.is_connected() for _, connection in upstream._idle))
        await read(await upstream.send("GET", "/models", {}, None))
    assert server.connections == 2


async def test_an_answer_given_up_wakes_its_reader_and_is_not_used_again() -> None:
    part = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n"
    server = Server(part, OK, OK)
    async with upstream_to(server) as upstream:
        answer = await upstream.send("GET", "/models", {}, None)
        assert await answer.content.readany() == b"hi"
        reading = asyncio.create_task(answer.content.readany())
        await asyncio.sleep(0)
        answer.close()
        with pytest.raises(aiohttp.ClientError):
            await reading
        await read(await upstream.send("GET", "/models", {}, None))
    assert server.connections == 2


async def test_a_cancelled_call_gives_its_connection_up() -> None:
    server = Server(b"silence", OK)
    async with upstream_to(server) as upstream:
        call = asyncio.create_task(upstream.send("GET", "/models", {}, None))
        while not server.requests:
            await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await read(await upstream.send("GET", "/models", {}, None))
    assert server.connections == 2
