"""What may pass in a request's and an answer's headers and framing, both ways.

Request headers go by an allow-list, so nothing a client invents reaches OpenAI; answers lose what belongs to one
connection and cookies (DESIGN "What holds" 8, facts/attacks.md A18-A21, A31, A39).
"""

from collections.abc import Mapping
from typing import Final

from aiohttp import HttpVersion10, HttpVersion11, web
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.core.errors import ApiError
from gateway.core.trace_context import TRACEPARENT, TRACESTATE
from gateway.edges.upstream import Answer
from pricing.readers.body import object_of, read_fields

EVENT_ID: Final = "x-gateway-event-id"
_FORWARDED: Final = frozenset(
    {"content-type", "accept", "openai-beta", "idempotency-key", "user-agent", TRACEPARENT, TRACESTATE}
)
_DROPPED: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "set-cookie",
        "content-length",
        EVENT_ID,
    }
)


def check_framing(request: web.BaseRequest) -> None:
    """Refuses what aiohttp's parser lets through. Raises ApiError."""
    headers = request.headers
    if request.version not in (HttpVersion11, HttpVersion10):
        raise ApiError(505, "http_version_not_supported", "This gateway speaks HTTP/1.1.")
    if request.version == HttpVersion10 and "Transfer-Encoding" in headers:
        raise ApiError(400, "invalid_framing", "HTTP/1.0 has no Transfer-Encoding.")
    if "api-key" in headers:
        message = "Send the key once, as 'Authorization: Bearer YOUR_KEY', and no api-key header."
        raise ApiError(400, "duplicate_header", message)
    encoding = headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        message = "Compressed request bodies are not accepted; send the body without Content-Encoding."
        raise ApiError(415, "unsupported_content_encoding", message)


async def read_body(request: web.BaseRequest, bytes_max: int) -> bytes:
    """The whole body. Raises ApiError 413 beyond `bytes_max`."""
    if (request.content_length or 0) > bytes_max:
        raise _too_large(bytes_max)
    if not request.body_exists:
        return b""
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


def forwarded_headers(headers: "CIMultiDictProxy[str]", event_id: str) -> dict[str, str]:
    """The request headers that OpenAI gets; our id goes as `X-Client-Request-Id`."""
    passed = {"X-Client-Request-Id": event_id}
    for name, value in headers.items():
        lower = name.lower()
        if lower in _FORWARDED or lower.startswith("x-stainless-"):
            passed[lower] = value  # one of each: two spellings of a name are one header
    return passed


def answer_headers(
    headers: Mapping[str, str], event_id: str, ours: Mapping[str, str] | None = None
) -> "CIMultiDict[str]":
    """The answer headers that the client gets; `ours` take the place of OpenAI's of the same name."""
    passed: CIMultiDict[str] = CIMultiDict()
    named = headers.get("Connection", "")
    dropped = _DROPPED | {part.strip().lower() for part in named.split(",")} if named else _DROPPED
    for name, value in headers.items():
        if name.lower() not in dropped:
            passed.add(name, value)
    passed[EVENT_ID] = event_id
    if ours:
        # OpenAI's rates are those of all customers together: beside ours they would mislead.
        for name in {name for name in passed if name.lower().startswith("x-ratelimit-")}:
            passed.popall(name, None)
        passed.update(ours)
    return passed


def is_event_stream(source: Answer) -> bool:
    """Whether the answer is a stream of server-sent events."""
    return source.headers.get("Content-Type", "").startswith("text/event-stream")


def is_error_envelope(body: bytes) -> bool:
    """Whether `body` is OpenAI's own error object, which says that the call did not run."""
    return object_of((read_fields(body) or {}).get("error")) is not None


def refusal(error: ApiError, event_id: str) -> web.Response:
    """The gateway's own error in OpenAI's envelope."""
    headers = {EVENT_ID: event_id, "Content-Type": "application/json", **error.headers}
    return web.Response(status=error.status, body=error.body(), headers=headers)
