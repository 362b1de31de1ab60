"""What may pass in a request's and an answer's headers and framing, both ways.

Both go by a list. Nothing that a client invents reaches OpenAI, and nothing that OpenAI says about its own host, its
connections or the operator's account reaches a client (DESIGN "What holds" 8, facts/attacks.md A18-A21, A31, A39).
"""

import re
from collections.abc import Mapping
from typing import Final

import aiohttp
from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.core.errors import ApiError
from gateway.core.trace_context import TRACEPARENT, TRACESTATE
from gateway.edges.upstream import Answer
from pricing.readers.body import read_fields, text_of
from pricing.readers.text import storable

CLIENT_LEFT: Final = "client_left"
"""Nobody's fault: an upload that was given up."""
EVENT_ID: Final = "x-gateway-event-id"
_FORWARDED: Final = frozenset(
    {"content-type", "accept", "openai-beta", "idempotency-key", "user-agent", TRACEPARENT, TRACESTATE}
)
_CODE: Final = re.compile(r"[a-z0-9_.\-]{1,64}")
_PASSED_BACK: Final = frozenset(
    {
        "content-type",
        "content-disposition",
        "content-language",
        "content-encoding",  # never asked for; where it comes all the same, the body cannot be read without it
        "x-request-id",
        "openai-processing-ms",
        "openai-version",
        "retry-after",
        "retry-after-ms",
        "x-should-retry",
    }
)
"""Headers of OpenAI's answers that a client gets. `x-ratelimit-*` are not among them: they count all customers of the
operator together, and the gateway sends those of the key itself."""
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
    """The answer headers that the client gets: those of OpenAI's that are on the list, and `ours`."""
    passed: CIMultiDict[str] = CIMultiDict()
    for name, value in headers.items():
        if name.lower() in _PASSED_BACK:
            passed.add(name, value)
    passed["Server"] = SERVER
    passed[EVENT_ID] = event_id
    if ours:
        passed.update(ours)
    return passed


def is_event_stream(source: Answer, *, asked: bool = False) -> bool:
    """Whether the answer is a stream of server-sent events. A media type may be written in any case (RFC 9110); where
    there is none, the answer is what was `asked` for."""
    media_type = source.headers.get("Content-Type")
    if media_type is None:
        return asked
    return (
        media_type.startswith("text/event-stream")
        or media_type.partition(";")[0].strip().lower() == "text/event-stream"
    )


def request_id_of(source: Answer) -> str | None:
    """OpenAI's id of the request, as it can be stored."""
    request_id = source.headers.get("x-request-id")
    return None if request_id is None else storable(request_id)


def error_code_of(body: bytes) -> str | None:
    """The code of OpenAI's own error object, when it is a word: nothing else may go into a log line."""
    error = (read_fields(body) or {}).get("error")
    code = None if error is None else text_of((read_fields(error) or {}).get("code"))
    return code if code is not None and _CODE.fullmatch(code) else None


def refusal(error: ApiError, event_id: str) -> web.Response:
    """The gateway's own error in OpenAI's envelope."""
    headers = {EVENT_ID: event_id, "Content-Type": "application/json", **error.headers}
    return web.Response(status=error.status, body=error.body(), headers=headers)
