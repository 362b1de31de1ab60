"""Ends an answer that has already begun when the gateway fails on it: it never gets a second head."""

import asyncio
from typing import Final

from aiohttp import web

from gateway.kit.errors import ApiError
from gateway.proxy.relay_result import RelayResult

WRITE_S: Final = 5.0
"""Seconds that a client has to take the error event."""


class AnswerBegun(Exception):
    """Raised from the cause when part of the answer may already have been sent."""

    def __init__(self, result: RelayResult, client: web.StreamResponse) -> None:
        super().__init__("the answer has begun")
        self.relay_result: Final = result
        self.client: Final = client


def error_event(error: ApiError) -> bytes:
    """The error event of a stream; the blank line first ends an event that was sent in part."""
    return b"\n\ndata: " + error.body() + b"\n\n"


async def end(request: web.BaseRequest, begun: AnswerBegun, error: ApiError) -> web.StreamResponse:
    """A stream ends with the error, as OpenAI's own do; anything else is cut."""
    result, client, transport = begun.relay_result, begun.client, request.transport
    if transport is None or result.ended:
        return client
    if result.meter is None or result.client_left:
        transport.abort()
        return client
    try:
        async with asyncio.timeout(WRITE_S):
            await client.write(error_event(error))
            await client.write_eof()
    except (ConnectionError, TimeoutError):
        transport.abort()
    return client
