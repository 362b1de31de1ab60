"""One metered call, from its body to its last byte, with every way it can end.

Reads as a sentence: read, attribute, open, forward, relay, settle, release. Must not retry (a try is a call of its
own, and the client's SDK makes it), and must not let a call that may have cost money end without a SETTLE.
"""

import asyncio
from datetime import UTC, datetime
from typing import Final

import structlog
from aiohttp import web

from gateway.core.endpoints import Route
from gateway.core.errors import ApiError
from gateway.core.event import NoteRecord, OpenRecord
from gateway.core.request import Request, read_request
from gateway.core.trace_context import TRACEPARENT, trace_id
from gateway.edges.upstream import Answer
from gateway.flows.proxy.admission import Principal
from gateway.flows.proxy.begun import AnswerBegun
from gateway.flows.proxy.credential import key_of
from gateway.flows.proxy.evidence import NoAnswer
from gateway.flows.proxy.headers import (
    answer_headers,
    error_code_of,
    forwarded_headers,
    is_event_stream,
    read_body,
    request_id_of,
)
from gateway.flows.proxy.line import detail_of
from gateway.flows.proxy.parts import Parts
from gateway.flows.proxy.relay import Relay
from gateway.flows.proxy.relayed import Relayed
from gateway.flows.proxy.seen import Seen, model_in
from gateway.flows.proxy.sending import send, upstream_refused_us
from gateway.flows.proxy.settlement import Settlement
from gateway.flows.proxy.tracing import Span
from pricing.readers.text import storable
from pricing.stream import StreamMeter

_log: Final = structlog.get_logger("gateway.proxy")


class MeteredCall:
    """One call; `run` once."""

    def __init__(
        self,
        parts: Parts,
        seen: Seen,
        route: Route,
        principal: Principal,
        event_id: str,
        started_s: float,
    ) -> None:
        self._parts: Final = parts
        self._seen: Final = seen
        self._request: Final = seen.request
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
        self._detail: str | None = None
        self._span: Span | None = None
        self._asked: Request
        self._opened: OpenRecord
        self._settlement: Settlement
        self._limit_headers: dict[str, str] = {}

    async def run(self) -> web.StreamResponse:
        """The answer for the client. Raises ApiError for what the gateway refuses, AnswerBegun when it is too late."""
        parts = self._parts
        body = await read_body(self._request, parts.bounds.body_bytes_max)
        read_s = self._time()
        try:
            self._asked = read_request(self._route.endpoint.name, body)
        except ApiError:
            self._seen.model = model_in(body)
            raise
        self._seen.model = self._asked.model[:200]
        if self._principal.due:
            self._renew()
        self._principal.check_model(self._asked.model)
        self._opened = await self._attribute(len(body))
        terms = self._principal.terms
        settlement = self._settlement = Settlement(parts, self._opened, self._asked, limited=terms is not None)
        if terms is not None:
            self._limit_headers = await parts.limiter.take(self._opened, terms, self._principal.unkey_key_id)
        try:
            return await self._open(read_s)
        except Exception as error:
            client = None if settlement.relayed is None else settlement.relayed.client
            if settlement.relayed is not None and client is not None and client.prepared:
                raise AnswerBegun(settlement.relayed, client) from error
            raise
        finally:
            if terms is not None:
                await self._give_back()

    async def _give_back(self) -> None:
        """What the limits hold for the call. It stays held when the call may have run and nothing says what it cost."""
        if self._settlement.event is None and self._sent_s is not None:
            self._parts.limiter.abandon(self._id)
        else:
            await self._parts.limiter.give_back(self._id, self._settlement.event)

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
            await self._settlement.settle(NoAnswer(code=None))
            raise
        parts.failpoint("proxy.opened")
        self._sent_s = self._time()
        self._ours_s += self._sent_s - read_s
        try:
            return await self._forward()
        except BaseException:
            await asyncio.shield(self._settlement.interrupt())
            raise
        finally:
            self._log()

    async def _attribute(self, body_bytes: int) -> OpenRecord:
        """Whose call it is, checked before it costs anything."""
        asked, principal = self._asked, self._principal
        named = self._request.headers.getall("X-Meeting-Id", [])
        meeting_id = await self._parts.meetings.of(named, principal.user_id) if named else None
        await self._parts.owners.check(asked.refers, principal.user_id)
        client_request_id = self._request.headers.get("X-Client-Request-Id")
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
            continues=asked.refers.read_too,
            cache_ttl=asked.cache_ttl,
            metadata={} if client_request_id is None else {"client_request_id": storable(client_request_id)},
        )

    async def _forward(self) -> web.StreamResponse:
        headers = forwarded_headers(self._request.headers, self._id)
        if self._parts.traces is not None:
            opened = self._opened
            self._span = self._parts.traces.begin(opened.endpoint, opened.model, headers, self._started_s)
        try:
            source = await send(self._parts.upstream, "POST", self._route.path, headers, self._asked.body)
        except ApiError as error:
            self._settlement.status, self._failed, self._detail = error.status, error.code, detail_of(error)
            await self._settlement.settle(NoAnswer(None if error.code == "upstream_unreachable" else error.code))
            raise
        self._parts.failpoint("proxy.headers")
        self._settlement.status = source.status
        self._settlement.request_id = request_id_of(source)
        # Must not become an attribute: the relay holds `self._note`, and what refers to itself waits for the collector.
        relay = Relay(
            self._request,
            source,
            answer_headers(source.headers, self._id, self._limit_headers),
            self._parts.bounds,
            self._parts.drains,
            self._note,
        )
        self._settlement.relayed = relay.result
        try:
            await self._relay(source, relay)
            answer = await relay.release()
            self._parts.failpoint("proxy.released")
            return answer
        finally:
            relay.close()

    async def _relay(self, source: Answer, relay: Relay) -> None:
        shape = self._route.endpoint.stream
        if source.status == 200 and shape is not None and is_event_stream(source, asked=self._asked.stream):
            meter = StreamMeter(shape, withhold=self._asked.withhold_usage)
            await relay.stream(meter)
            await self._settlement.settle(relay.result.describe_end(200))
            return
        if source.status == 401:  # before anything is read: a large body would pass to the client as it comes
            await self._settlement.settle(relay.result.describe_end(source.status))
            error = upstream_refused_us()
            self._failed = error.code
            raise error
        await relay.whole()
        await self._settlement.settle(relay.result.describe_end(source.status))

    async def _note(self, relayed: Relayed) -> None:
        """The response id is in the journal, and its owner known, before the client sees it."""
        self._parts.failpoint("proxy.first_chunk")
        self._parts.recorder.note(NoteRecord(self._id, relayed.said.response_id, relayed.deltas))
        settlement = self._settlement
        if self._asked.stored and not settlement.owner_known and relayed.said.response_id is not None:
            settlement.owner_known = True
            await self._parts.owners.remember([relayed.said.response_id], self._principal.user_id)
        self._parts.failpoint("proxy.noted")

    def _log(self) -> None:
        settlement, parts = self._settlement, self._parts
        event, relayed, status = settlement.event, settlement.relayed, settlement.status
        if event is None:
            _log.error("a call ended without settle", id=self._id)
            return
        left = relayed is not None and relayed.client_left
        broken = self._failed if relayed is None else relayed.broken
        ms = (parts.clock() - self._started_s) * 1000
        begun, first = self._begun_s, None if relayed is None else relayed.first_byte_s
        trace = trace_id(self._request.headers.get(TRACEPARENT))
        said = None if relayed is None or status < 400 else error_code_of(relayed.text)
        first_ms = None if first is None else (first - begun) * 1000
        parts.log.metered(event, status, ms, first_ms, left, trace, self._failed or broken, said, self._detail)
        self._seen.is_logged = True
        if self._span is not None:
            self._span.end(event, status)
        if relayed is not None and broken is None:
            self._ours_s += self._time() - relayed.heard_s
        wait = None if first is None or self._sent_s is None else first - self._sent_s
        parts.metrics.metered(event, status, self._ours_s, wait, client_left=left)
        if relayed is not None and relayed.coding is not None:
            parts.metrics.coded(relayed.coding)
        if broken != "drain_limit" and (broken is not None or status >= 500 or status in (401, 429)):
            parts.metrics.upstream_failed(status, broken, said)
