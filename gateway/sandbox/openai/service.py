"""The OpenAI stand-in: chat, responses, embeddings and models as OpenAI's API serves them, with real token counts.

It is the truth of the tests: what its call log holds is what a real OpenAI would have charged. Must not know that a
gateway calls it. Its routes and control calls are in routes.py, the smaller endpoints in more.py.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web

from gateway.sandbox.openai import errors
from gateway.sandbox.openai.answer import Choice, Wish, answer
from gateway.sandbox.openai.calls import Behaviour, Behaviours, CallLog, ReceivedCall
from gateway.sandbox.openai.chat import Chat, chat_body, chat_events, chat_failure, chat_wish
from gateway.sandbox.openai.embeddings import embeddings_body, inputs_of
from gateway.sandbox.openai.models import Models, Served
from gateway.sandbox.openai.printing import encode_indented
from gateway.sandbox.openai.responses import broken_event, build_response, input_items, response_events, responses_wish
from gateway.sandbox.openai.store import ResponseStore, StoredResponse
from gateway.sandbox.openai.tokens import Coder, Counter, PromptCache
from gateway.sandbox.openai.usage import Input, chat_usage, responses_usage, shown, wants_12h
from gateway.sandbox.openai.wire import Exchange, Pace, StreamScript, refusal
from pricing.book import Book

BELIEVABLE: Final = Pace(first_s=0.15, interval_s=0.01)
AT_ONCE: Final = Pace(first_s=0.0, interval_s=0.0)
IN_THREAD_CHARS: Final = 16_000
"""Bodies from this size on are counted in a thread."""
BODY_BYTES_MAX: Final = 64 * 1024 * 1024
T = TypeVar("T")
Fields = dict[str, Any]
Run = Callable[[Exchange, Fields, Served], Awaitable[web.StreamResponse]]


class OpenAI:
    """The stand-in's state and what each endpoint does with it."""

    def __init__(self, book: Book, coder: Coder, api_key: str, *, clock: Callable[[], float], paced: bool) -> None:
        """`clock` gives Unix seconds."""
        self.models: Final = Models(book)
        self.log: Final = CallLog()
        self.behaviours: Final = Behaviours()
        self.store: Final = ResponseStore()
        self.pace = BELIEVABLE if paced else AT_ONCE
        self.clock: Final = clock
        self.counter: Final = Counter(coder)
        self._cache: Final = PromptCache(self.counter)
        self._warm: Final[set[str]] = set()
        self._credential: Final = f"Bearer {api_key}"
        # Ids must not come again after a restart: whoever stored them would find the wrong object.
        self._boot: Final = secrets.token_hex(12)
        self._number = 0

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """POST /chat/completions."""
        return await self.call_model(request, "chat", "text", self._chat)

    async def responses(self, request: web.Request) -> web.StreamResponse:
        """POST /responses."""
        return await self.call_model(request, "responses", "text", self._responses)

    async def embeddings(self, request: web.Request) -> web.StreamResponse:
        """POST /embeddings."""
        return await self.call_model(request, "embeddings", "embedding", self._embeddings)

    async def record(
        self, request: web.Request, endpoint: str, serve: Callable[[ReceivedCall], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Any call with its record, and its refusals in OpenAI's words."""
        self._number += 1
        call = self.log.open(endpoint, self.clock(), f"req_{self._boot}{self._number:08x}", request.headers)
        try:
            header = request.headers.get("Authorization")
            if header != self._credential:
                raise errors.wrong_key(header, endpoint)
            return await serve(call)
        except errors.OpenAIError as wrong:
            call.status = wrong.status
            return refusal(wrong, call, self.pace)
        except ConnectionError:
            return web.Response()  # the client has gone; aiohttp sees that for itself
        finally:
            call.done = True

    def exchange(self, request: web.Request, call: ReceivedCall, fields: Fields) -> Exchange:
        """The call with its behaviour: the one that waits for it, and what its own metadata asks for."""
        behaviour = self.behaviours.take(call.endpoint, call.model, call.stream)
        metadata = fields.get("metadata")
        if isinstance(metadata, dict):
            behaviour = _asked_for(behaviour, metadata)
        return Exchange(request, call, behaviour, self.pace)

    async def call_model(self, request: web.Request, endpoint: str, kind: str, run: Run) -> web.StreamResponse:
        """One call of a model of this `kind`: `run` answers it. Its refusals are OpenAI's."""

        async def serve(call: ReceivedCall) -> web.StreamResponse:
            fields = await read_fields(request)
            name = fields.get("model")
            call.model = name if isinstance(name, str) else None
            call.stream = fields.get("stream") is True and kind == "text"
            exchange = self.exchange(request, call, fields)
            if (instead := await exchange.misbehave()) is not None:
                return instead
            if not call.model:
                raise errors.invalid("you must provide a model parameter", "model")
            served = self.models.find(call.model)
            if served is None:
                raise errors.no_model(call.model, endpoint)
            if served.kind != kind:
                raise errors.wrong_kind(call.model, endpoint)
            call.response_model = served.id
            return await run(exchange, fields, served)

        return await self.record(request, endpoint, serve)

    async def _chat(self, exchange: Exchange, fields: Fields, served: Served) -> web.StreamResponse:
        call = exchange.call

        def think() -> tuple[list[Choice], Input]:
            return self.think(exchange, fields, served, chat_wish(fields, self.counter, served.encoding))

        choices, spent = await self.in_time(exchange, served, think)
        call.service_tier = served.tier(fields.get("service_tier"))
        said = said_as(exchange.behaviour, served.id, call.service_tier)
        chat = Chat(f"chatcmpl-{call.request_id[4:]}", int(self.clock()), *said, choices, served.reasoning)
        call.response_id = chat.id
        thought = sum(choice.reasoning for choice in choices)
        total = sum(choice.tokens for choice in choices)
        call.usage = chat_usage(spent, total, thought)
        usage = shown(call.usage, exchange.behaviour.usage)
        if not call.stream:
            return await exchange.send_whole(chat_body(chat, usage), total)
        return await exchange.stream(
            StreamScript(
                events=chat_events(chat, fields.get("stream_options"), usage),
                charge=lambda tokens: chat_usage(spent, tokens, min(tokens, thought)),
                broken=lambda _, __, ___: chat_failure(),
            )
        )

    async def _responses(self, exchange: Exchange, fields: Fields, served: Served) -> web.StreamResponse:
        call, behaviour = exchange.call, exchange.behaviour
        fields, earlier = self.looked_up(fields), self.earlier(fields)

        def think() -> tuple[list[Choice], Input]:
            wish = responses_wish(fields, earlier, self.counter, served.encoding)
            return self.think(exchange, fields, served, wish)

        (choice,), spent = await self.in_time(exchange, served, think)
        done = build_response(fields, served, choice, call.request_id[4:], int(self.clock()))
        call.service_tier = done.base["service_tier"]
        done.base["model"], done.base["service_tier"] = said_as(behaviour, served.id, done.base["service_tier"])
        call.response_id = done.base["id"]
        call.usage = responses_usage(spent, choice.tokens, choice.reasoning)
        usage = shown(call.usage, behaviour.usage)
        final = done.final(None if usage == "omit" else usage)
        options = fields.get("stream_options")
        padded = not (isinstance(options, dict) and options.get("include_obfuscation") is False)
        told, alive = (done, final), behaviour.keepalives
        if fields.get("store") is not False:
            items = input_items(fields)

            def events() -> list[bytes]:
                whole = [event.data for event in response_events(*told, padded=padded, keepalives=alive)]
                sent = whole[: call.chunks_sent] if call.stream else whole
                return sent if exchange.failed is None else [*sent, exchange.failed]

            self.store.keep(StoredResponse(done.running(), events, items, [*earlier, *items]))
        if not call.stream:
            self.store.end(final)
            return await exchange.send_whole(encode_indented(final), choice.tokens)

        def charge(tokens: int) -> dict[str, Any]:
            return responses_usage(spent, tokens, min(tokens, choice.reasoning))

        def broken(kind: str, tokens: int, number: int) -> bytes:
            so_far = shown(charge(tokens), behaviour.usage)
            return broken_event(done, kind, number, None if so_far == "omit" else so_far)

        try:
            events_sent = response_events(*told, padded=padded, keepalives=alive)
            return await exchange.stream(StreamScript(events_sent, charge, broken))
        finally:
            # What is fetched later must be what was charged, however the stream ended.
            until_then = shown(call.usage, behaviour.usage)
            charged = None if until_then == "omit" else until_then
            if call.finished:
                self.store.end(final)
            else:
                self.store.end(
                    done.interrupted_response(charged) if exchange.failed is None else done.failed_response(charged)
                )

    async def _embeddings(self, exchange: Exchange, fields: Fields, served: Served) -> web.StreamResponse:
        call = exchange.call
        texts, tokens = await self.in_time(exchange, served, lambda: inputs_of(fields, self.counter, served.encoding))
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        name = exchange.behaviour.response_model or served.id
        body = embeddings_body(fields, served, texts, name, shown(usage, exchange.behaviour.usage))
        call.usage = usage
        return await exchange.send_whole(body)

    def earlier(self, fields: Fields) -> list[Any]:
        """The items of the responses that a request goes on from. Raises OpenAIError (400)."""
        previous = fields.get("previous_response_id")
        if previous is None:
            return []
        stored = self.store.find(previous) if isinstance(previous, str) else None
        if stored is None:
            message = f"Previous response with id '{previous}' not found."
            raise errors.invalid(message, "previous_response_id", "previous_response_not_found")
        return stored.conversation

    def looked_up(self, fields: Fields) -> Fields:
        """The request with the items that it refers to in their places. Raises OpenAIError (404)."""
        given = fields.get("input")
        if not isinstance(given, list):
            return fields
        items = []
        for item in given:
            if isinstance(item, dict) and item.get("type") == "item_reference":
                found = self.store.item(item.get("id"))
                if found is None:
                    raise errors.no_item(str(item.get("id")))
                item = found
            items.append(item)
        return {**fields, "input": items}

    def think(self, exchange: Exchange, fields: Fields, served: Served, wish: Wish) -> tuple[list[Choice], Input]:
        """The answers, and the input side of their bill."""
        behaviour = exchange.behaviour
        if behaviour.chunks is not None:
            wish = msgspec.structs.replace(wish, tokens=behaviour.chunks)
        choices = answer(self.counter, served, wish)
        if behaviour.chunk_bytes:
            choices = [choice.with_huge_piece(behaviour.chunk_bytes) for choice in choices]
        read = self._cache.read(served.id, wish.prompt, served.encoding)
        return choices, Input(wish.prompt.tokens, read, served.writes_cache, wants_12h(fields))

    async def in_time(self, exchange: Exchange, served: Served, count: Callable[[], T]) -> T:
        """Counts where it does not hold up other calls: long texts, and the first use of an encoding, in a thread."""
        size = exchange.request.content_length
        if served.encoding in self._warm and size is not None and size < IN_THREAD_CHARS:
            return count()
        result = await asyncio.to_thread(count)
        self._warm.add(served.encoding)
        return result


async def read_fields(request: web.Request) -> Fields:
    """The request's JSON object. Raises OpenAIError (400)."""
    try:
        return msgspec.json.decode(await request.read(), type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        raise errors.unreadable() from None


def said_as(behaviour: Behaviour, model: str, tier: str) -> tuple[str, str]:
    """The model and the tier as the answer names them."""
    return behaviour.response_model or model, behaviour.response_tier or tier


def _asked_for(behaviour: Behaviour, metadata: dict[str, Any]) -> Behaviour:
    """`sandbox_chunks` and `sandbox_interval_ms` of a request's metadata hold where no control call says otherwise."""
    chunks, interval_ms = (metadata.get(f"sandbox_{name}") for name in ("chunks", "interval_ms"))
    if behaviour.chunks is None and isinstance(chunks, str) and chunks.isdigit():
        behaviour = msgspec.structs.replace(behaviour, chunks=int(chunks))
    if behaviour.interval_s is None and isinstance(interval_ms, str) and interval_ms.isdigit():
        behaviour = msgspec.structs.replace(behaviour, interval_s=int(interval_ms) / 1000)
    return behaviour
