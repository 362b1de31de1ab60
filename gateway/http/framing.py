"""Framing, bodies and refusals of the public port, both ways: what aiohttp's parser lets through is refused here."""

from typing import Final

import aiohttp
from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.http_exceptions import HttpProcessingError

from gateway.kit.errors import ApiError

CLIENT_LEFT: Final = "client_left"
"""Nobody's fault: an upload that was given up."""
EVENT_ID: Final = "x-gateway-event-id"
SERVER: Final = "pailflow-gateway"
"""The `Server` of every answer: neither OpenAI's nor the versions of our libraries."""


def check_framing(request: web.BaseRequest) -> None:
    """Refuses what aiohttp's parser lets through. Raises ApiError."""
    headers = request.headers
    if request.version not in (HttpVersion11, HttpVersion10):
        raise ApiError(505, "http_version_not_supported", "This gateway speaks HTTP/1.1.")
    if request.version == HttpVersion10 and "Transfer-Encoding" in headers:
        raise ApiError(400, "invalid_framing", "HTTP/1.0 has no Transfer-Encoding.")
    encoding = headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        message = "Compressed request bodies are not accepted; send the body without Content-Encoding."
        raise ApiError(415, "unsupported_content_encoding", message)


async def read_body(request: web.BaseRequest, bytes_max: int) -> bytes:
    """The whole body. Raises ApiError: 413 beyond `bytes_max`, 499 when the client leaves before its end."""
    if (request.content_length or 0) > bytes_max:
        raise _too_large(bytes_max)
    if not request.body_exists:
        return b""
    try:
        return await _read(request, bytes_max)
    except (OSError, aiohttp.ClientPayloadError, HttpProcessingError) as error:
        raise ApiError(499, CLIENT_LEFT, "The client left before it had sent its request.") from error


async def _read(request: web.BaseRequest, bytes_max: int) -> bytes:
    if request.headers.get("Expect", "").lower() == "100-continue":  # the client waits; it is known by now
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    first = await request.content.readany()
    if request.content.at_eof():
        return first
    chunks, size = [first], len(first)
    while size <= bytes_max and (chunk := await request.content.readany()):
        chunks.append(chunk)
        size += len(chunk)
    if size > bytes_max:
        raise _too_large(bytes_max)
    return b"".join(chunks)


def _too_large(bytes_max: int) -> ApiError:
    return ApiError(413, "request_too_large", f"The request body is larger than {bytes_max} bytes.")


def refusal(error: ApiError, event_id: str) -> web.Response:
    """The gateway's own error in OpenAI's envelope."""
    headers = {EVENT_ID: event_id, "Content-Type": "application/json", **error.headers}
    return web.Response(status=error.status, body=error.body(), headers=headers)
