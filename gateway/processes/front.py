"""The public port: each path goes to what answers it; what nobody else has claimed goes to the proxy.

What is beside the proxy answers, or raises an ApiError; what else it raises is told as the proxy tells it, in OpenAI's
envelope, so that no path of this port ever shows a trace.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from aiohttp import web

from gateway.http.errors import as_refusal
from gateway.kit.errors import ApiError
from gateway.proxy.handler import Proxy
from gateway.proxy.request_info import RequestInfo

Handler = Callable[[web.BaseRequest, str], Awaitable[web.StreamResponse]]
"""Answers a request; its second argument is the id under which errors are logged and answered."""


class Front:
    """One per process. `others` maps the first segment of a path (`/webhooks`) to who answers everything below it."""

    def __init__(self, proxy: Proxy, others: Mapping[str, Handler]) -> None:
        self._proxy: Final = proxy
        self._others: Final = others

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Never raises: what goes wrong is an answer."""
        path = request.raw_path
        if path.startswith("/v1/"):  # nearly always: nothing may be looked up here
            return await self._proxy.handle(request)
        handler = self._others.get("/" + path[1:].partition("?")[0].partition("/")[0])
        if handler is None:
            return await self._proxy.handle(request)
        event_id = self._proxy.new_id()
        try:
            return await handler(request, event_id)
        except Exception as error:  # noqa: BLE001  # the last resort of a server; as_refusal logs it
            return self._proxy.refuse(RequestInfo(request), event_id, as_refusal(error, event_id))

    def refuse_unreadable(self, request: web.BaseRequest, error: Exception) -> web.Response:
        """The answer to bytes that are no HTTP request. The parser's own words quote them, and so the key."""
        message = "This is not a valid HTTP/1.1 request, or its request line or a header is too long."
        refused = ApiError(400, "invalid_framing", message, detail=type(error).__name__)
        return self._proxy.refuse(RequestInfo(request), self._proxy.new_id(), refused)
