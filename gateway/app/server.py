"""The HTTP server of the public port: aiohttp's, whose answers all carry the same `Server` header."""

from collections.abc import Coroutine
from typing import Any

from aiohttp import web

from gateway.flows.proxy.headers import SERVER


class _Connection(web.RequestHandler):
    """One connection of a client."""

    __slots__ = ()

    def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> Coroutine[Any, Any, tuple[web.StreamResponse, bool]]:
        """Every answer passes here, also those that aiohttp itself makes for bytes that are not HTTP."""
        resp.headers.setdefault("Server", SERVER)
        return super().finish_response(request, resp, start_time)


class Server(web.Server):
    """Makes a handler for each connection."""

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)
