"""The smaller endpoints of the OpenAI stand-in: legacy completions, compaction, token counts, moderations."""

from base64 import b64encode
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Any, Final

from aiohttp import web

from gateway.sandbox.openai import errors
from gateway.sandbox.openai.answer import Choice
from gateway.sandbox.openai.calls import ReceivedCall
from gateway.sandbox.openai.chat import chat_failure
from gateway.sandbox.openai.completions import Completion, completion_body, completion_events, completion_wishes
from gateway.sandbox.openai.models import Served
from gateway.sandbox.openai.printing import encode_indented
from gateway.sandbox.openai.responses import input_items, responses_wish
from gateway.sandbox.openai.service import Fields, OpenAI, read_fields, said_as
from gateway.sandbox.openai.usage import Input, completions_usage, responses_usage, shown
from gateway.sandbox.openai.wire import Exchange, StreamScript

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_SCORE_SHARE: Final = 0.000001
"""How sure the moderation is of each category."""
_CATEGORIES: Final = (
    "harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent", "self-harm",
    "self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors", "violence", "violence/graphic",
)  # fmt: skip


def routes(openai: OpenAI) -> list[web.RouteDef]:
    """What this file answers, relative to the stand-in's prefix."""

    def model(endpoint: str, run: Callable[..., Awaitable[web.StreamResponse]]) -> Handler:
        async def answer(exchange: Exchange, fields: Fields, served: Served) -> web.StreamResponse:
            return await run(openai, exchange, fields, served)

        async def handle(request: web.Request) -> web.StreamResponse:
            return await openai.call_model(request, endpoint, "text", answer)

        return handle

    def free(endpoint: str, answer: Callable[[OpenAI, Fields], Any]) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            async def serve(call: ReceivedCall) -> web.StreamResponse:
                fields = await read_fields(request)
                exchange = openai.exchange(request, call, fields)
                if (instead := await exchange.misbehave()) is not None:
                    return instead
                return await exchange.send_whole(encode_indented(answer(openai, fields)))

            return await openai.record(request, endpoint, serve)

        return handle

    return [
        web.post("/v1/completions", model("completions", _completions)),
        web.post("/v1/responses/compact", model("responses.compact", _compact)),
        web.post("/v1/responses/input_tokens", free("responses.input_tokens", _input_tokens)),
        web.post("/v1/moderations", free("moderations", _moderations)),
    ]


async def _completions(openai: OpenAI, exchange: Exchange, fields: Fields, served: Served) -> web.StreamResponse:
    call = exchange.call

    def think() -> tuple[list[Choice], int, int]:
        wishes, visible = completion_wishes(fields, openai.counter, served.encoding)
        choices, read, written = [], 0, 0
        for wish in wishes:
            answers, spent = openai.think(exchange, fields, served, wish)
            choices += answers[:visible]
            read += spent.tokens
            written += sum(choice.tokens for choice in answers)
        return choices, read, written

    choices, read, written = await openai.in_time(exchange, served, think)
    name, _ = said_as(exchange.behaviour, served.id, "default")
    completion = Completion(f"cmpl-{call.request_id[4:]}", int(openai.clock()), name, choices)
    call.response_id = completion.id
    call.usage = completions_usage(read, written)
    usage = shown(call.usage, exchange.behaviour.usage)
    if not call.stream:
        return await exchange.send_whole(completion_body(completion, usage), written)
    return await exchange.stream(
        StreamScript(
            events=completion_events(completion, fields.get("stream_options"), usage),
            charge=lambda tokens: completions_usage(read, tokens),
            broken=lambda _, __, ___: chat_failure(),
        )
    )


async def _compact(openai: OpenAI, exchange: Exchange, fields: Fields, served: Served) -> web.StreamResponse:
    call = exchange.call
    fields, earlier = openai.looked_up(fields), openai.earlier(fields)

    def think() -> tuple[list[Choice], Input]:
        wish = responses_wish(fields, earlier, openai.counter, served.encoding)
        return openai.think(exchange, fields, served, wish)

    (choice,), spent = await openai.in_time(exchange, served, think)
    number = call.request_id[4:]
    call.response_id = f"resp_{number}"
    call.usage = responses_usage(spent, choice.tokens, choice.reasoning)
    kept = [item for item in [*earlier, *input_items(fields)] if item.get("role") == "user"]
    sealed = b64encode(sha256(choice.text.encode()).digest()).decode()
    body: dict[str, Any] = {
        "id": call.response_id,
        "object": "response.compaction",
        "created_at": int(openai.clock()),
        "output": [*kept, {"id": f"cmp_{number}", "type": "compaction", "encrypted_content": sealed}],
    }
    usage = shown(call.usage, exchange.behaviour.usage)
    return await exchange.send_whole(
        encode_indented(body if usage == "omit" else body | {"usage": usage}), choice.tokens
    )


def _input_tokens(openai: OpenAI, fields: Fields) -> Any:
    model = fields.get("model") or "gpt-5"
    served = openai.models.find(model) if isinstance(model, str) else None
    if served is None:
        raise errors.no_model(str(model), "responses")
    wish = responses_wish(openai.looked_up(fields), openai.earlier(fields), openai.counter, served.encoding)
    return {"object": "response.input_tokens", "input_tokens": wish.prompt.tokens}


def _moderations(openai: OpenAI, fields: Fields) -> Any:
    given = fields.get("input")
    if given is None:
        raise errors.missing("input")
    inputs = given if isinstance(given, list) else [given]
    model = fields.get("model") or "omni-moderation-latest"
    if not isinstance(model, str) or not model.startswith(("omni-moderation", "text-moderation")):
        raise errors.no_model(str(model), "moderations")
    result = {
        "flagged": False,
        "categories": dict.fromkeys(_CATEGORIES, False),
        "category_scores": dict.fromkeys(_CATEGORIES, _SCORE_SHARE),
        "category_applied_input_types": {name: ["text"] for name in _CATEGORIES},
    }
    # A list of parts (objects) is one input; a list of texts is one each.
    count = 1 if any(isinstance(item, dict) for item in inputs) else len(inputs)
    return {"id": f"modr-{int(openai.clock())}", "model": model, "results": [result] * count}
