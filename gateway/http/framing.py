"""Framing and refusals of the public port, both ways: what aiohttp's parser lets through is refused here."""

from typing import Final

from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.http_exceptions import HttpProcessingError

from gateway.kit.errors import ApiError

CLIENT_LEFT: Final = "client_left"
"""Nobody's fault: an upload that was given up."""
TIMED_OUT: Final = 408
EVENT_ID: Final = "x-gateway-event-id"
SERVER: Final = "pailflow-gateway"
"""The `Server` of every answer: neither OpenAI's nor the versions of our libraries."""


CLOSING: Final = frozenset({"invalid_framing", "unsupported_transfer_encoding"})
"""Errors after which nothing more is read from the connection: where the next request begins is in doubt."""


class BrokenBody(HttpProcessingError):
    """The parser has found no end of the body: what came is not a chunk."""


def check_framing(request: web.BaseRequest) -> None:
    """Refuses what aiohttp's parser lets through. Raises ApiError."""
    headers = request.headers
    if request.version != HttpVersion11:
        _check_version(request)
    if "Transfer-Encoding" in headers:
        _check_transfer(headers.getall("Transfer-Encoding"))
    if "Content-Encoding" in headers:
        _check_coding(headers.getall("Content-Encoding"))


def _check_version(request: web.BaseRequest) -> None:
    if request.version != HttpVersion10:
        raise ApiError(505, "http_version_not_supported", "This gateway speaks HTTP/1.1.")
    if "Transfer-Encoding" in request.headers:
        raise ApiError(400, "invalid_framing", "HTTP/1.0 has no Transfer-Encoding.")


def _check_transfer(codings: list[str]) -> None:
    """aiohttp takes any list that ends in `chunked`, and leaves the other codings to whoever reads the body."""
    if len(codings) > 1:
        raise ApiError(400, "invalid_framing", "The Transfer-Encoding header is given more than once.")
    if codings[0].strip(" \t").lower() != "chunked":
        message = "The only Transfer-Encoding that this gateway takes is chunked."
        raise ApiError(501, "unsupported_transfer_encoding", message)


def _check_coding(codings: list[str]) -> None:
    if len(codings) > 1:
        raise ApiError(400, "invalid_framing", "The Content-Encoding header is given more than once.")
    if codings[0].lower() != "identity":
        message = "Compressed request bodies are not accepted; send the body without Content-Encoding."
        raise ApiError(415, "unsupported_content_encoding", message)


def refusal(error: ApiError, event_id: str) -> web.Response:
    """The gateway's own error in OpenAI's envelope."""
    headers = {EVENT_ID: event_id, "Content-Type": "application/json", **error.headers}
    answer = web.Response(status=error.status, body=error.body(), headers=headers)
    if error.status == TIMED_OUT:
        answer.force_close()  # what would come next on the connection is the rest of this request
    return answer
