"""How the OpenAI stand-in's answers go out: head, pace, and every way of breaking off that it was told.

The call's record is kept true here: what was sent, and what is charged when the answer ends early.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import msgspec
from aiohttp import web
from multidict import CIMultiDict

from gateway.sandbox.openai.calls import Behaviour, ReceivedCall
from gateway.sandbox.openai.errors import OpenAIError, ordered_error
from gateway.sandbox.openai.head import CHUNKED, answer_headers, refusal_headers

EVENTS: Final = "text/event-stream; charset=utf-8"
"""The media type of streams; that of completions has no charset (25 of 25 recordings)."""
_LENGTH_MISSING: Final = 1 << 20
"""How many bytes more than it sends a `length` cut promises."""

_LOOK_S: Final = 0.02
"""How often a call that is never answered looks whether its client is still there, seconds."""


class Pace(msgspec.Struct, forbid_unknown_fields=True):
    """How fast the model seems to be, seconds."""

    first_s: float
    """Before the first byte."""
    interval_s: float
    """Between the events of a stream; an answer that is not streamed takes a tenth of it per token."""

    @property
    def processing_ms(self) -> int:
        """What `openai-processing-ms` says."""
        return int(self.first_s * 1000) + 1


class StreamEvent(NamedTuple):
    """One event of a stream, and how many output tokens the model has produced when it is sent."""

    data: bytes
    tokens: int


class StreamScript(NamedTuple):
    """The stream as it would be, and what it takes to end it early."""

    events: Iterator[StreamEvent]
    charge: Callable[[int], dict[str, Any]]
    """The usage after so many output tokens."""
    broken: Callable[[str, int, int], bytes]
    """The event that reports a failure: `fail` or `error`, tokens so far, events so far."""


class Exchange:
    """One request and its answer."""

    def __init__(self, request: web.Request, call: ReceivedCall, behaviour: Behaviour, pace: Pace) -> None:
        self.request: Final = request
        self.call: Final = call
        self.behaviour: Final = behaviour
        self.pace: Final = pace
        self.interval_s = pace.interval_s if behaviour.interval_s is None else behaviour.interval_s
        self.failed: bytes | None = None
        """The event with which a stream failed as it was told to, once it is sent."""

    async def misbehave(self) -> web.StreamResponse | None:
        """The answer that a behaviour puts in place of running the call, if it does. Raises OpenAIError."""
        wrong = self.behaviour
        if wrong.delay_s:
            await asyncio.sleep(wrong.delay_s)
        if wrong.hang:
            # aiohttp tells a handler of a client that left only by cancelling it, for all handlers of a server alike.
            while self.request.transport is not None and not self.request.transport.is_closing():  # noqa: ASYNC110
                await asyncio.sleep(_LOOK_S)
        if wrong.hang or wrong.drop == "before":
            return self._hang_up()
        if wrong.redirect is not None:
            self.call.status = 307
            return web.Response(status=307, headers=self._headers(Location=wrong.redirect))
        if wrong.status is not None and wrong.plain:
            self.call.status = wrong.status
            page = "<html><body><h1>Bad Gateway</h1></body></html>"
            return web.Response(status=wrong.status, text=page, content_type="text/html", headers=self._headers())
        if wrong.status is not None:
            raise ordered_error(wrong.status, wrong.code, wrong.message, wrong.retry_after_s)
        return None

    async def send_whole(self, body: bytes, output_tokens: int = 0) -> web.StreamResponse:
        """An answer in one piece; what is charged for it is in the record already."""
        seconds = self.pace.first_s + self.interval_s * output_tokens / 10
        if seconds:
            await asyncio.sleep(seconds)
        if self.behaviour.drop == "after":
            return self._hang_up()
        if self.behaviour.cut_after is not None:
            headers = self._headers(**{"Content-Type": "application/json"})
            sender = Sender(self.request, headers, self.behaviour.cut_how)
            self.call.status = 200
            await sender.open(len(body))
            await sender.send(body[: self.behaviour.cut_after])
            return sender.cut()
        response = web.Response(body=body, content_type="application/json", headers=self._headers())
        if self.call.endpoint in CHUNKED:
            response.enable_chunked_encoding()
        return await self.sent(response)

    async def replay(self, events: bytes) -> web.StreamResponse:
        """A stream that was sent before, in one go."""
        response = web.Response(body=events, headers=self._headers(**{"Content-Type": EVENTS}))
        response.enable_chunked_encoding()
        return await self.sent(response)

    async def sent(self, response: web.Response) -> web.Response:
        """Sends a whole answer now, so that the record can say whether it went out."""
        self.call.status = response.status
        await response.prepare(self.request)
        await response.write_eof()
        self.call.finished = True
        return response

    async def stream(self, stream: StreamScript) -> web.StreamResponse:
        """An event stream. However it ends, the record has the usage of the tokens produced until then."""
        wrong = self.behaviour
        cut = wrong.cut_after
        how = "chunked" if cut is None else wrong.cut_how
        media = "text/event-stream" if self.call.endpoint == "completions" else EVENTS
        sender = Sender(self.request, self._headers(**{"Content-Type": media}), how)
        if self.pace.first_s:
            await asyncio.sleep(self.pace.first_s)
        if wrong.drop == "after":
            self.call.usage = stream.charge(0)
            return self._hang_up()
        produced = 0
        self.call.status = 200
        try:
            await sender.open(_LENGTH_MISSING)
            for event in stream.events:
                sent = self.call.chunks_sent
                if cut is not None and sent >= cut:
                    return sender.cut()
                if sent in (wrong.fail_after, wrong.error_after):
                    kind = "fail" if sent == wrong.fail_after else "error"
                    failure = stream.broken(kind, produced, sent)
                    await sender.send(failure)
                    self.failed = failure
                    break
                if sent and self.interval_s:
                    await asyncio.sleep(self.interval_s)
                produced = event.tokens
                await sender.send(event.data)
                self.call.chunks_sent += 1
            else:
                self.call.finished = True
            return await sender.end()
        except ConnectionError:
            self.call.finished = False
            return sender.response
        finally:
            self.call.usage = stream.charge(produced)

    def _headers(self, **more: str) -> CIMultiDict[str]:
        headers = answer_headers(self.call, self.pace.processing_ms)
        headers.update(more)
        return headers

    def _hang_up(self) -> web.Response:
        self.call.status = None
        if self.request.transport is not None:
            self.request.transport.close()
        return web.Response()


class Sender:
    """The bytes of one answer in the framing that its end needs."""

    def __init__(self, request: web.Request, headers: CIMultiDict[str], how: str) -> None:
        self._request: Final = request
        self._headers: Final = headers
        self._how: Final = how
        self.response: web.StreamResponse = web.Response()

    async def open(self, length: int) -> None:
        """The head; a `length` framing promises `length` bytes."""
        if self._how == "close":
            # No length and no chunks: only the end of the connection ends the body. aiohttp has no such answer.
            self._headers["Connection"] = "close"
            lines = [f"{name}: {value}" for name, value in self._headers.items()]
            await self.send("\r\n".join(["HTTP/1.1 200 OK", *lines, "", ""]).encode())
            return
        self.response = web.StreamResponse(headers=self._headers)
        if self._how == "length":
            self.response.content_length = length
        else:
            self.response.enable_chunked_encoding()
        await self.response.prepare(self._request)

    async def send(self, data: bytes) -> None:
        """Raises ConnectionError when the client has gone."""
        if self._how != "close":
            await self.response.write(data)
            return
        transport = self._request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        transport.write(data)

    async def end(self) -> web.StreamResponse:
        """The regular end."""
        if self._how != "chunked":
            return self.cut()
        await self.response.write_eof()
        return self.response

    def cut(self) -> web.StreamResponse:
        """Ends the connection after what was sent, whatever the head promised."""
        if self._request.transport is not None:
            self._request.transport.close()
        return self.response


def refusal(wrong: OpenAIError, call: ReceivedCall, pace: Pace) -> web.Response:
    """An error in OpenAI's envelope."""
    headers = refusal_headers(call, pace.processing_ms, wrong.status, at_door=wrong.at_door)
    headers["Content-Type"] = "application/json; charset=utf-8" if wrong.at_door else "application/json"
    headers.update(wrong.headers)
    return web.Response(status=wrong.status, body=wrong.body(), headers=headers)
