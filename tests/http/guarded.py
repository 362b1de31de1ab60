"""The server of the public port in this process, with its guards, over a handler that says what it has seen."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, cast
from uuid import uuid4

from aiohttp import web

from gateway.config.settings import ConnectionSettings
from gateway.http.connections import ClientConnections, Delay
from gateway.http.framing import refusal
from gateway.http.listener import Listener
from gateway.http.uploads import Uploads
from gateway.kit.errors import ApiError
from gateway.processes.front import Front
from gateway.processes.server import open_server
from gateway.processes.supervisor import listen
from gateway.proxy.handler import Proxy
from tests.support.patience import ENDS_S

LARGE: Final = 8 * 1024 * 1024
MINUTE_S: Final = 60
STALL_S: Final = 60.0 * MINUTE_S
SLOWER: Final = {
    "head_s": 10 * MINUTE_S,
    "body_s": 10 * MINUTE_S,
    "body_idle_s": 20 * MINUTE_S,
    "body_bytes_per_s": 20_000 // MINUTE_S,
}
"""The defaults with a minute for each second: what a test itself takes must not count, however busy the machine is."""


class _OnlyIds:
    """As much of the proxy as the front needs."""

    def new_id(self) -> str:
        return str(uuid4())

    def refuse(self, _info: Any, event_id: str, refused: ApiError) -> web.Response:
        return refusal(refused, event_id)


class Guarded:
    """A server, and what it guards."""

    def __init__(self, **settings: Any) -> None:
        self.files = settings.pop("files", 1024)
        drains = settings.pop("drains", lambda: 0)
        self.settings: Final = ConnectionSettings(**SLOWER, **settings)
        self.uploads: Final = Uploads(self.settings)
        self.connections: Final = ClientConnections(
            self.settings, self.uploads, files=self.files, write_stall_s=STALL_S, drains=drains
        )
        self.listener: Listener
        self.port = 0
        self.clients: Final[list[Client]] = []
        self.waiting = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()

    def look(self, later_min: float = 0) -> None:
        """As the process does once a second, so many minutes later."""
        self.connections.look(asyncio.get_running_loop().time() + later_min * MINUTE_S)

    def late(self, what: Delay) -> int:
        """How many connections have ended because of it."""
        return self.connections.delayed[what]

    async def handle(self, request: web.BaseRequest, _event_id: str) -> web.StreamResponse:
        """Answers with what it has seen: address, bytes of the body; or with much."""
        if key := request.headers.get("Key"):
            self.connections.own(request.protocol, key)
        body = await self.uploads.read(request, LARGE, request.headers.get("Key"))
        self.waiting.set()
        await self.go_on.wait()
        if request.raw_path == "/seen/large":
            return web.Response(body=b"x" * LARGE)
        return web.json_response({"remote": request.remote, "body": len(body)})

    async def open(self) -> "Client":
        """A client's connection."""
        return self.take(Client(*await asyncio.open_connection("127.0.0.1", self.port)))

    def take(self, client: "Client") -> "Client":
        """One more client, which is closed at the end."""
        self.clients.append(client)
        return client


class Client:
    """One connection, as a client has it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader: Final = reader
        self.writer: Final = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()
        await settle()

    async def ask(self, *headers: str, path: str = "/seen", body: bytes = b"") -> None:
        """A whole request."""
        lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers, "", ""]
        await self.send("\r\n".join(lines).encode() + body)

    async def answer(self) -> tuple[int, Any]:
        """Status and JSON of the next answer."""
        async with asyncio.timeout(ENDS_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
            body = await self.reader.readexactly(int(fields[b"Content-Length"]))
        return int(head.split()[1]), json.loads(body)

    async def rest(self) -> bytes:
        """All that comes until the server closes."""
        async with asyncio.timeout(ENDS_S):
            return await self.reader.read()


async def settle() -> None:
    """Lets the other side's callbacks run."""
    for _ in range(20):
        await asyncio.sleep(0.001)


@asynccontextmanager
async def guarded(**settings: Any) -> AsyncIterator[Guarded]:
    """Serves until the context ends."""
    made = Guarded(**settings)
    front = Front(cast(Proxy, _OnlyIds()), {"/seen": made.handle})
    server = open_server(front, made.connections, None, keepalive_s=75)
    runner, bound = web.ServerRunner(server), listen("127.0.0.1", 0)
    await runner.setup()
    made.port = bound.getsockname()[1]
    made.listener = Listener(server, made.connections)
    made.listener.start([bound])
    try:
        yield made
    finally:
        for client in made.clients:
            client.writer.transport.abort()
        await settle()
        made.listener.close()
        bound.close()
        await runner.cleanup()
