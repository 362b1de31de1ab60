"""Answers to free calls that are not passed on as they come: HEAD, the list of models, traces that nobody wants."""

import asyncio
from typing import Final

import aiohttp
import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from gateway.access.served_models import is_shown, shown_list
from gateway.http.framing import EVENT_ID
from gateway.keys.permissions import Allowed
from gateway.kit.errors import ApiError
from gateway.openai.headers import answer_headers
from gateway.openai.routing import MatchedRoute
from gateway.openai.upstream import UpstreamAnswer

LIST_BYTES_MAX: Final = 16 * 1024 * 1024
"""Largest list of models that is read; a model takes about 150 bytes."""
LIST_S: Final = 60.0
_MODEL_PATH: Final = "/models/"


def discard(event_id: str) -> web.Response:
    """Answers 204 without reading the body: aiohttp drains the rest of it from the connection."""
    return web.Response(status=204, headers={EVENT_ID: event_id})


def check_shown(route: MatchedRoute, allowed: Allowed | None) -> None:
    """Raises ApiError 404 for a model that the key may not see, worded as OpenAI words it for a missing model."""
    if route.endpoint.name == "models.get":
        name = route.path.partition("?")[0].removeprefix(_MODEL_PATH)
        if not is_shown(name, allowed):
            raise ApiError(404, "model_not_found", f"The model '{name}' does not exist", param="model")


async def answer_whole(
    request: web.BaseRequest, route: MatchedRoute, source: UpstreamAnswer, allowed: Allowed | None, event_id: str
) -> web.Response | None:
    """Answers HEAD and the list of models; None for an answer that is to be relayed. Raises ApiError 502."""
    headers = answer_headers(source.headers, event_id)
    if request.method == "HEAD":
        length = source.headers.get("Content-Length")
        source.close()
        if length is not None and length.isdigit() and route.endpoint.name != "models":
            headers["Content-Length"] = length
        return web.Response(status=source.status, headers=headers)
    if route.endpoint.name != "models" or source.status != 200:
        return None
    try:
        async with asyncio.timeout(LIST_S):
            body = await _read(source)
        return web.Response(status=200, headers=headers, body=shown_list(body, allowed))
    except (aiohttp.ClientError, HttpProcessingError, OSError, msgspec.DecodeError) as error:
        message = "OpenAI's list of models could not be read."
        raise ApiError(502, "upstream_cut", message, kind="server_error") from error
    finally:
        source.release()


async def _read(source: UpstreamAnswer) -> bytes:
    pieces, size = [], 0
    while piece := await source.content.readany():
        pieces.append(piece)
        size += len(piece)
        if size > LIST_BYTES_MAX:
            raise aiohttp.ClientPayloadError(f"more than {LIST_BYTES_MAX} bytes")
    return b"".join(pieces)
