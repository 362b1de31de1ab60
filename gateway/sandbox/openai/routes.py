"""The OpenAI stand-in's routes: OpenAI's own under `/v1`, and the control calls of tests under `/_control`.

GET    /_control            the behaviours that wait
POST   /_control            adds one: a JSON object with the fields of `Behaviour` (calls.py); unknown ones are 400
DELETE /_control            the regular behaviour again, for everything
POST   /_control/pace       {"first_s": 0, "interval_s": 0}: how fast answers come, seconds
GET    /_control/calls      {"calls": […]} with the fields of `ReceivedCall`; `?after=N` leaves out the first N
DELETE /_control/calls      forgets the calls
"""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from gateway.sandbox.openai import errors
from gateway.sandbox.openai import more as openai_more
from gateway.sandbox.openai.calls import Behaviour, ReceivedCall
from gateway.sandbox.openai.models import model_object
from gateway.sandbox.openai.printing import encode_compact, encode_indented
from gateway.sandbox.openai.service import OpenAI
from gateway.sandbox.openai.wire import Pace

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def routes(openai: OpenAI) -> list[web.RouteDef]:
    """Everything that the stand-in answers, relative to its prefix."""
    return [
        web.post("/v1/chat/completions", openai.chat),
        web.post("/v1/responses", openai.responses),
        web.post("/v1/embeddings", openai.embeddings),
        web.get("/v1/responses/{id}", _record_call(openai, "responses.get", _get_response)),
        web.delete("/v1/responses/{id}", _record_call(openai, "responses.delete", _delete_response)),
        web.post("/v1/responses/{id}/cancel", _record_call(openai, "responses.cancel", _cancel_response)),
        web.get("/v1/responses/{id}/input_items", _record_call(openai, "responses.input_items", _input_items)),
        web.get("/v1/models", _record_call(openai, "models", _models)),
        web.get("/v1/models/{id}", _record_call(openai, "models.get", _model)),
        *openai_more.routes(openai),
        *_control(openai),
        web.route("*", "/{path:.*}", _record_call(openai, "unknown", _unknown)),
    ]


def _record_call(openai: OpenAI, endpoint: str, answer: Callable[[OpenAI, web.Request, ReceivedCall], Any]) -> Handler:
    """A call that runs no model: `answer` returns what is sent as JSON, or bytes of an event stream."""

    async def handle(request: web.Request) -> web.StreamResponse:
        async def serve(call: ReceivedCall) -> web.StreamResponse:
            exchange = openai.exchange(request, call, {})
            if (instead := await exchange.misbehave()) is not None:
                return instead
            said = answer(openai, request, call)
            if not isinstance(said, bytes):
                return await exchange.send_whole(encode_indented(said))
            return await exchange.replay(said)

        return await openai.record(request, endpoint, serve)

    return handle


def _get_response(openai: OpenAI, request: web.Request, call: ReceivedCall) -> Any:
    stored = openai.store.find(request.match_info["id"])
    if stored is None:
        raise errors.no_response(request.match_info["id"])
    call.response_id = stored.response["id"]
    if request.query.get("stream") != "true":
        return stored.response
    after = request.query.get("starting_after", "-1")
    return b"".join(stored.events()[int(after) + 1 if after.isdigit() else 0 :])


def _delete_response(openai: OpenAI, request: web.Request, call: ReceivedCall) -> Any:
    response_id = call.response_id = request.match_info["id"]
    if not openai.store.delete(response_id):
        raise errors.no_response(response_id)
    return {"id": response_id, "object": "response.deleted", "deleted": True}


def _cancel_response(openai: OpenAI, request: web.Request, call: ReceivedCall) -> Any:
    response_id = call.response_id = request.match_info["id"]
    if openai.store.find(response_id) is None:
        raise errors.no_response(response_id)
    raise errors.invalid("Cannot cancel a synchronous response.")


def _input_items(openai: OpenAI, request: web.Request, call: ReceivedCall) -> Any:
    response_id = call.response_id = request.match_info["id"]
    stored = openai.store.find(response_id)
    if stored is None:
        raise errors.no_response(response_id)
    usual = {"type": "message", "status": "completed"}
    items = [{"id": f"msg_in{index}"} | usual | item for index, item in enumerate(stored.items)]
    if request.query.get("order") != "asc":
        items.reverse()
    ends = [items[0]["id"], items[-1]["id"]] if items else [None, None]
    return {"object": "list", "data": items, "first_id": ends[0], "last_id": ends[1], "has_more": False}


def _models(openai: OpenAI, _: web.Request, __: ReceivedCall) -> Any:
    return {"object": "list", "data": openai.models.listed()}


def _model(openai: OpenAI, request: web.Request, _: ReceivedCall) -> Any:
    name = request.match_info["id"]
    if openai.models.find(name) is None:
        raise errors.no_such_model(name)
    return model_object(name)


def _unknown(_: OpenAI, request: web.Request, __: ReceivedCall) -> Any:
    raise errors.no_url(request.method, request.path)


def _control(openai: OpenAI) -> list[web.RouteDef]:
    async def waiting(_: web.Request) -> web.Response:
        return _json({"behaviours": openai.behaviours.pending()})

    async def add(request: web.Request) -> web.Response:
        try:
            openai.behaviours.add(msgspec.json.decode(await request.read(), type=Behaviour))
        except msgspec.DecodeError as error:
            return _json({"error": str(error)}, 400)
        return await waiting(request)

    async def clear(request: web.Request) -> web.Response:
        openai.behaviours.clear()
        return await waiting(request)

    async def pace(request: web.Request) -> web.Response:
        try:
            openai.pace = msgspec.json.decode(await request.read(), type=Pace)
        except msgspec.DecodeError as error:
            return _json({"error": str(error)}, 400)
        return _json(openai.pace)

    async def calls(request: web.Request) -> web.Response:
        after = request.query.get("after", "0")
        if not after.isdecimal():
            return _json({"error": f"after: a number of calls is expected, got {after!r}"}, 400)
        return _json({"calls": openai.log.calls(int(after))})

    async def forget(_: web.Request) -> web.Response:
        openai.log.reset()
        return _json({"calls": []})

    return [
        web.get("/_control", waiting),
        web.post("/_control", add),
        web.delete("/_control", clear),
        web.post("/_control/pace", pace),
        web.get("/_control/calls", calls),
        web.delete("/_control/calls", forget),
    ]


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, body=encode_compact(value), content_type="application/json")
