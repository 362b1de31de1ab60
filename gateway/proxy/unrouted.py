"""What a request is told that no family takes: why it is refused, or the mistake that people make.

Must not quote a query: it may hold a key.
"""

from aiohttp import web

from gateway.http.cors import Cors
from gateway.kit.errors import ApiError
from gateway.openai import routing as endpoints
from gateway.openai.families.refused import why_unserved
from gateway.proxy.request_info import plain


def answer_unrouted(request: web.BaseRequest, cors: Cors | None) -> web.StreamResponse:
    """The answer to a browser's preflight. Raises ApiError for everything else."""
    if request.method == "OPTIONS" and cors is not None and request.raw_path.startswith("/v1/"):
        return _preflight(request, cors)
    raise _refusal(request)


def _preflight(request: web.BaseRequest, cors: Cors) -> web.Response:
    if not cors.admits(request.headers.get("Origin")):
        message = "Pages of this origin may not call this gateway; its operator lists them in cors.origins."
        raise ApiError(403, "origin_not_allowed", message)
    return web.Response(status=204, headers=cors.preflight(request.headers.get("Access-Control-Request-Headers", "")))


def _refusal(request: web.BaseRequest) -> ApiError:
    method, path = request.method, request.raw_path.partition("?")[0]
    served = [each for each in ("GET", "POST", "DELETE") if endpoints.match(each, path) is not None]
    if request.headers.get("Upgrade", "").lower() == "websocket" and "POST" in served:
        # Codex tries this first, and goes on by HTTP at once when it is told so (with 404 it tries seven times).
        message = f"{plain(path)} is not served over WebSocket; use POST, with stream: true for a stream."
        return ApiError(426, "websocket_not_supported", message, headers={"Upgrade": "HTTP/1.1"})
    message = f"{plain(method)} {plain(path)} is not served{_why(method, path, served)}"
    return ApiError(404, "endpoint_not_supported", message)


def _why(method: str, path: str, served: list[str]) -> str:
    reason = why_unserved(method, path)
    if reason is not None:
        return f": {reason}."
    if served:
        return f": this path takes {' and '.join(served)}."
    if not path.startswith("/v1/"):
        return ": every path begins with /v1/, so the base URL of a client must end in /v1."
    if path.startswith("/v1/v1/") or path.endswith(("/chat/completions", "/responses")):
        return ": the base URL of a client must end in /v1, once, with nothing after it."
    return ": this gateway knows no such path of OpenAI's API."
