"""The HTTP server of the public port: aiohttp's, with what every answer carries whoever made it."""

import asyncio
from functools import partial
from typing import Any, Final

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import RawRequestMessage

from gateway.http.connections import ClientConnection, ClientConnections
from gateway.http.cors import Cors
from gateway.http.framing import SERVER
from gateway.processes.front import Front


class _Request(web.BaseRequest):
    cors: Cors | None = None

    @property
    def remote(self) -> str:
        """The address of the client, also behind our own proxies."""
        assert isinstance(self._protocol, ClientConnection)
        return self._protocol.client_of(self.headers)

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        """aiohttp calls this before the head of any answer goes out, also of those that it makes itself."""
        response.headers["Server"] = SERVER
        if self.cors is not None and self.raw_path.startswith("/v1/"):
            response.headers.update(self.cors.headers(self.headers.get("Origin")))


class _Connection(ClientConnection):
    __slots__ = ("_front",)

    def __init__(self, server: web.Server, front: Front, connections: ClientConnections, **settings: Any) -> None:
        """`settings`: those of aiohttp's server."""
        super().__init__(server, connections, **settings)
        self._front: Final = front

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """aiohttp's answer to what its parser refuses quotes it, key and all."""
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun; it cannot have a second head")
        answer = self._front.refuse_unreadable(request, exc)
        answer.force_close()
        return answer


class _Server(web.Server):
    def __init__(self, front: Front, connections: ClientConnections, cors: Cors | None, keepalive_s: float) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(front.handle, request_factory=partial(_make_request, loop, cors))
        self._front: Final = front
        self._open: Final = connections
        self._settings: Final[dict[str, Any]] = {
            "loop": loop,
            "access_log": None,
            "auto_decompress": False,
            "keepalive_timeout": keepalive_s,
        }

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, self._front, self._open, **self._settings)


def open_server(front: Front, connections: ClientConnections, cors: Cors | None, *, keepalive_s: float) -> web.Server:
    """A server that gives every request to `front`; `keepalive_s`: seconds that an idle connection stays open."""
    return _Server(front, connections, cors, keepalive_s)


def _make_request(
    loop: asyncio.AbstractEventLoop,
    cors: Cors | None,
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: web.RequestHandler,
    writer: AbstractStreamWriter,
    task: "asyncio.Task[None]",
) -> web.BaseRequest:
    request = _Request(message, payload, protocol, writer, task, loop)
    if cors is not None:
        request.cors = cors
    return request
