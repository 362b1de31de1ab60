"""The HTTP server of the public port: aiohttp's, with what every answer carries whoever made it."""

import asyncio
from functools import partial

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage

from gateway.http.cors import Cors
from gateway.http.framing import SERVER
from gateway.processes.front import Front


class _Request(web.BaseRequest):
    cors: Cors | None = None

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        """aiohttp calls this before the head of any answer goes out, also of those that it makes itself."""
        response.headers["Server"] = SERVER
        if self.cors is not None and self.raw_path.startswith("/v1/"):
            response.headers.update(self.cors.headers(self.headers.get("Origin")))


def open_server(front: Front, cors: Cors | None, *, keepalive_s: float) -> web.Server:
    """A server that gives every request to `front`; `keepalive_s`: seconds that an idle connection stays open."""
    made = partial(_make_request, asyncio.get_running_loop(), cors)
    return web.Server(front.handle, request_factory=made, access_log=None, keepalive_timeout=keepalive_s)


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
