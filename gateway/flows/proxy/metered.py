"""One metered call, from its body to its last byte, with every way it can end.

Reads as a sentence: read, attribute, open, forward, relay, settle, release. Must not retry (a try is a call of its
own, and the client's SDK makes it), and must not let a call that may have cost money end without a SETTLE.
"""

import asyncio
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import structlog
from aiohttp import web

from gateway.core.endpoints import Route
from gateway.core.errors import ApiError
from gateway.core.event import NoteRecord, OpenRecord, UsageEvent
from gateway.core.request import Request, read_request
from gateway.core.trace_context import TRACEPARENT, trace_id
from gateway.edges.upstream import Answer
from gateway.flows.proxy.admission import Principal
from gateway.flows.proxy.credential import key_of
from gateway.flows.proxy.headers import (
    answer_headers,
    forwarded_headers,
    is_error_envelope,
    is_event_stream,
    read_body,
)
from gateway.flows.proxy.parts import Parts
from gateway.flows.proxy.relay import Relay
from gateway.flows.proxy.relayed import Relayed
from gateway.flows.proxy.sending import send, upstream_refused_us
from gateway.flows.proxy.tracing import Span
from pricing.readers.body import Said
from pricing.stream import StreamMeter

_log: Final = structlog.get_logger("gateway.proxy")


class MeteredCall:
    """One call; `run` once."""

    def __init__(
        self,
        parts: Parts,
        request: web.BaseRequest,
        route: Route,
        principal: Principal,
        event_id: str,
        started_s: float,
    ) -> None:
        self._parts: Final = parts
        self._request: Final = request
        self._route: Final = route
        self._principal: Final = principal
        self._id: Final = event_id
        self._started_s: Final = started_s
        self._time: Final = asyncio.get_running_loop().time
        self._begun_s: Final = self._time()
        self._ours_s = parts.clock() - started_s
        """Seconds that the call has spent in here so far: neither reading from the client nor waiting for OpenAI."""
        self._sent_s: float | None = None
        self._failed: str | None = None
        self._span: Span | None = None
        self._asked: Request
        self._opened: OpenRecord
        self._status = 0
        self._request_id: str | None = None
        self._relayed: Relayed | None = None
        self._settled: UsageEvent | None = None
        self._owner_known = False
        self._limit_headers: dict[str, str] = {}

    async def run(self) -> web.StreamResponse:
        """The answer for the client. Raises ApiError for what the gateway refuses."""
        parts = self._parts
        body = await read_body(self._request, parts.bounds.body_bytes_max)
        read_s = self._time()
        self._asked = read_request(self._route.endpoint.name, body)
        if self._principal.due:
            self._renew()
        self._principal.check_model(self._asked.model)
        self._opened = await self._attribute(len(body))
        terms = self._principal.terms
        if terms is None:
            return await self._open(read_s)
        self._limit_headers = await parts.limiter.take(self._opened, terms, self._principal.unkey_key_id)
        try:
            return await self._open(read_s)
        finally:
            await parts.limiter.give_back(self._id, self._settled)

    def _renew(self) -> None:
        """By now the model is known, which Unkey's analytics want to have."""
        key = key_of(self._request.headers)
        self._parts.admission.renew(key, endpoint=self._route.endpoint.name, model=self._asked.model)

    async def _open(self, read_s: float) -> web.StreamResponse:
        """`read_s`: when the request had been read, seconds of the loop's clock."""
        parts = self._parts
        try:
            await parts.recorder.open(self._opened)
        except asyncio.CancelledError:
            # The OPEN is on its way to the disk, the call is not: it must not be swept as if it had run.
            await self._settle(parts.settler.void(self._opened, parts.now(), "not_sent"))
            raise
        parts.failpoint("proxy.opened")
        self._sent_s = self._time()
        self._ours_s += self._sent_s - read_s
        try:
            return await self._forward()
        except BaseException:
            # A shutdown, or a bug of ours: the call may have run, so it must not end without its row.
            if self._settled is None:
                await asyncio.shield(self._estimate("gateway_interrupted"))
            raise
        finally:
            self._log()

    async def _attribute(self, body_bytes: int) -> OpenRecord:
        """Whose call it is, checked before it costs anything."""
        asked, principal = self._asked, self._principal
        named = self._request.headers.getall("X-Meeting-Id", [])
        meeting_id = await self._parts.meetings.of(named, principal.user_id) if named else None
        if asked.refers:
            await self._parts.owners.check(asked.refers, principal.user_id)
        client_request_id = self._request.headers.get("X-Client-Request-Id")
        if client_request_id is not None and not client_request_id.isascii():  # bytes that are no UTF-8 are no text
            client_request_id = client_request_id.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        return OpenRecord(
            id=self._id,
            user_id=principal.user_id,
            endpoint=self._route.endpoint.name,
            model=asked.model,
            started_at=datetime.fromtimestamp(self._started_s, UTC),
            api_key_id=principal.api_key_id,
            meeting_id=meeting_id,
            service_tier=asked.service_tier,
            body_bytes=body_bytes,
            text_bytes=asked.text_bytes,
            media_parts=asked.media_parts,
            output_cap=asked.output_cap,
            choices=asked.choices,
            stream=asked.stream,
            continues=bool(asked.refers),
            cache_ttl=asked.cache_ttl,
            metadata={} if client_request_id is None else {"client_request_id": client_request_id[:512]},
        )

    async def _forward(self) -> web.StreamResponse:
        headers = forwarded_headers(self._request.headers, self._id)
        if self._parts.traces is not None:
            opened = self._opened
            self._span = self._parts.traces.begin(opened.endpoint, opened.model, headers, self._started_s)
        try:
            source = await send(self._parts.upstream, "POST", self._route.path, headers, self._asked.body)
        except ApiError as error:
            self._status, self._failed = error.status, error.code
            if error.code == "upstream_unreachable":
                await self._settle(self._parts.settler.void(self._opened, self._parts.now(), "not_sent"))
            else:
                await self._estimate(error.code)
            raise
        self._parts.failpoint("proxy.headers")
        self._status = source.status
        self._request_id = source.headers.get("x-request-id")
        # Must not become an attribute: the relay holds `self._note`, and what refers to itself waits for the collector.
        relay = Relay(
            self._request,
            source,
            answer_headers(source.headers, self._id, self._limit_headers),
            self._parts.bounds,
            self._parts.drains,
            self._note,
        )
        self._relayed = relay.result
        try:
            await self._relay(source, relay)
            answer = await relay.release()
            self._parts.failpoint("proxy.released")
            return answer
        finally:
            relay.close()

    async def _relay(self, source: Answer, relay: Relay) -> None:
        shape = self._route.endpoint.stream
        if source.status == 200 and shape is not None and is_event_stream(source):
            meter = StreamMeter(shape, withhold=self._asked.withhold_usage)
            await relay.stream(meter)
            await self._settle_stream(relay.result, meter)
            return
        if source.status == 401:  # before anything is read: a large body would pass to the client as it comes
            await self._settle_whole(relay.result)
            raise upstream_refused_us()
        await relay.whole()
        await self._settle_whole(relay.result)

    async def _settle_stream(self, relayed: Relayed, meter: StreamMeter) -> None:
        if relayed.said.usage is not None and relayed.broken is None and not meter.overflow:
            # Usage comes last: a chat stream that ended as it should in all but its `[DONE]` has said everything.
            metadata = {"failed": True} if meter.failed else {}
            await self._settle(self._exact(metadata if meter.terminal else {**metadata, "unterminated": True}))
        elif relayed.complete:
            await self._estimate("usage_missing", meter)
        else:
            await self._estimate(relayed.broken or ("stream_failed" if meter.failed else "no_terminal_event"), meter)

    async def _settle_whole(self, relayed: Relayed) -> None:
        status = self._status
        if status == 200 and relayed.complete and relayed.said.usage is not None:
            await self._settle(self._exact({}))
        elif 400 <= status < 500 or (status in (500, 503) and is_error_envelope(relayed.last)):
            event = self._parts.settler.void(
                self._opened,
                self._parts.now(),
                f"http_{status}",
                request_id=self._request_id,
                metadata={"status": status},
            )
            await self._settle(event)
        else:
            await self._estimate(relayed.broken or ("usage_missing" if status == 200 else f"http_{status}"))

    def _exact(self, metadata: dict[str, Any]) -> UsageEvent:
        relayed = self._relayed
        assert relayed is not None
        return self._parts.settler.exact(
            self._opened,
            relayed.said,
            self._parts.now(),
            drained=relayed.client_left,
            request_id=self._request_id,
            metadata=metadata,
        )

    async def _estimate(self, reason: str, meter: StreamMeter | None = None) -> None:
        parts, relayed = self._parts, self._relayed
        said = Said() if relayed is None else relayed.said
        metadata: dict[str, Any] = {"status": self._status} if self._status else {}
        if said.usage is not None:
            event = self._exact(metadata)
            event = parts.settler.unfinished(event, self._opened, reason)
        else:
            tokens = await parts.estimator.tokens(self._opened, self._asked.body, meter)
            event = parts.settler.estimated(
                self._opened, said, parts.now(), reason, tokens, request_id=self._request_id, metadata=metadata
            )
        await self._settle(event)

    async def _settle(self, event: UsageEvent) -> None:
        """SETTLE is on disk when this returns, also when the caller is cancelled meanwhile."""
        if self._asked.stored and self._relayed is not None:
            event = await self._own(event, self._relayed.said)
        self._parts.failpoint("proxy.ended")
        self._settled = event
        await self._parts.recorder.settle(event)
        self._parts.failpoint("proxy.settled")
        if self._principal.terms is not None:
            # Before the last byte: the client's next call must find the room that this one gives back.
            await self._parts.limiter.give_back(self._id, event)

    async def _note(self, relayed: Relayed) -> None:
        """The response id is in the journal, and its owner known, before the client sees it."""
        self._parts.failpoint("proxy.first_chunk")
        self._parts.recorder.note(NoteRecord(self._id, relayed.said.response_id, relayed.deltas))
        if self._asked.stored and not self._owner_known and relayed.said.response_id is not None:
            self._owner_known = True
            await self._parts.owners.remember([relayed.said.response_id], self._principal.user_id)
        self._parts.failpoint("proxy.noted")

    async def _own(self, event: UsageEvent, said: Said) -> UsageEvent:
        """The answer and its items are known as the user's before the client has the end of it, in one trip to Redis;
        and the event tells Postgres of the items, as it does of the answer."""
        fresh = [] if said.response_id is None or self._owner_known else [said.response_id]
        if fresh or said.item_ids:
            self._owner_known = True
            await self._parts.owners.remember([*fresh, *said.item_ids], self._principal.user_id)
        return msgspec.structs.replace(event, item_ids=tuple(said.item_ids)) if said.item_ids else event

    def _log(self) -> None:
        event, relayed, parts = self._settled, self._relayed, self._parts
        if event is None:
            _log.error("a call ended without settle", id=self._id)
            return
        left = relayed is not None and relayed.client_left
        broken = self._failed if relayed is None else relayed.broken
        ms = (parts.clock() - self._started_s) * 1000
        begun, first = self._begun_s, None if relayed is None else relayed.first_byte_s
        trace = trace_id(self._request.headers.get(TRACEPARENT))
        parts.log.metered(event, self._status, ms, None if first is None else (first - begun) * 1000, left, trace)
        if self._span is not None:
            self._span.end(event, self._status)
        if relayed is not None and broken is None:
            self._ours_s += self._time() - relayed.heard_s
        wait = None if first is None or self._sent_s is None else first - self._sent_s
        parts.metrics.metered(event, self._status, self._ours_s, wait, client_left=left)
        if broken != "drain_limit" and (broken is not None or self._status >= 500 or self._status in (401, 429)):
            parts.metrics.upstream_failed(self._status, broken)
