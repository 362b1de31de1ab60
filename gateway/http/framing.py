"""Framing and refusals of the public port, both ways: what aiohttp's parser lets through is refused here."""

from typing import Final

from aiohttp import HttpVersion10, HttpVersion11, web

from gateway.kit.errors import ApiError

CLIENT_LEFT: Final = "client_left"
"""Nobody's fault: an upload that was given up."""
TIMED_OUT: Final = 408
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


def refusal(error: ApiError, event_id: str) -> web.Response:
    """The gateway's own error in OpenAI's envelope."""
    headers = {EVENT_ID: event_id, "Content-Type": "application/json", **error.headers}
    answer = web.Response(status=error.status, body=error.body(), headers=headers)
    if error.status == TIMED_OUT:
        answer.force_close()  # what would come next on the connection is the rest of this request
    return answer
