"""One metered call, from its body to its last byte, with every way it can end.

Reads as a sentence: read, attribute, open, forward, relay, settle, release. Must not retry (a try is a call of its
own, and the client's SDK makes it), and must not let a call that may have cost money end without a SETTLE.
"""

import asyncio
from functools import partial
from typing import Final

from aiohttp import web

from gateway.access.admission import Principal
from gateway.http.credentials import key_of
from gateway.kit.errors import ApiError
from gateway.limits.local_limits import KeyUse
from gateway.openai.headers import answer_headers, forwarded_headers, is_event_stream, request_id_of
from gateway.openai.request import Request, read_request
from gateway.openai.routing import MatchedRoute
from gateway.openai.upstream import UpstreamAnswer
from gateway.proxy.attribute import attribute_call
from gateway.proxy.begun import AnswerBegun
from gateway.proxy.call_report import CallReport
from gateway.proxy.dependencies import Dependencies
from gateway.proxy.evidence import NoAnswer
from gateway.proxy.relay import Relay
from gateway.proxy.relay_result import RelayResult
from gateway.proxy.request_info import RequestInfo, model_in
from gateway.proxy.send import send, upstream_refused_us
from gateway.proxy.settlement import Settlement
from gateway.usage.event import NoteRecord, OpenRecord
from pricing.stream import StreamMeter


class MeteredCall:
    """One call; `run` once."""

    def __init__(
        self,
        deps: Dependencies,
        info: RequestInfo,
        route: MatchedRoute,
        principal: Principal,
        event_id: str,
        started_s: float,
        use: KeyUse,
    ) -> None:
        self._use: Final = use
        self._deps: Final = deps
        self._info: Final = info
        self._request: Final = info.request
        self._route: Final = route
        self._principal: Final = principal
        self._id: Final = event_id
        self._started_s: Final = started_s
        self._report: Final = CallReport(deps, info, started_s)
        self._asked: Request
        self._opened: OpenRecord
        self._settlement: Settlement
        self._limit_headers: dict[str, str] = {}

    async def run(self) -> web.StreamResponse:
        """The answer for the client. Raises ApiError for what the gateway refuses, AnswerBegun when it is too late."""
        deps, principal, endpoint = self._deps, self._principal, self._route.endpoint.name
        body = await deps.clients.uploads.read(self._request, deps.bounds.body_bytes_max, principal.unkey_key_id)
        self._report.mark_read()
        self._asked = await self._read(body)
        principal.check_model(self._asked.model)
        self._opened = await attribute_call(
            deps, self._request, principal, endpoint, self._asked, self._id, self._started_s, len(body)
        )
        key_limits = principal.key_limits
        settlement = self._settlement = Settlement(deps, self._opened, self._asked, limited=key_limits is not None)
        if key_limits is not None:
            self._limit_headers = await deps.limiter.take(self._opened, key_limits, principal.unkey_key_id)
        try:
            return await self._open()
        except Exception as error:
            client = None if settlement.relay_result is None else settlement.relay_result.client
            if settlement.relay_result is not None and client is not None and client.prepared:
                raise AnswerBegun(settlement.relay_result, client) from error
            raise
        finally:
            if key_limits is not None:
                await self._give_back()

    async def _read(self, body: bytes) -> Request:
        """What is asked for. Raises ApiError."""
        judge, key = self._deps.judge, self._principal.unkey_key_id
        set_field = self._deps.namespaces.fields_of(self._principal.user_id)
        read = read_request if set_field is None else partial(read_request, set_field=set_field)
        try:
            asked = await judge.read(read, self._route.endpoint.name, body, key)
        except ApiError:
            self._info.model = model_in(body)
            raise
        self._info.model = asked.model[:200]
        if self._principal.due:  # only now is the model known, which Unkey's analytics want to have
            key = key_of(self._request.headers)
            self._deps.admission.renew(key, endpoint=self._route.endpoint.name, model=asked.model)
        return asked

    async def _open(self) -> web.StreamResponse:
        """From the OPEN on, every end has its SETTLE."""
        settlement = self._settlement
        try:
            await self._deps.recorder.open(self._opened)
        except asyncio.CancelledError:
            # The OPEN is on its way to the disk, the call is not: it must not be swept as if it had run.
            await settlement.settle(NoAnswer(code=None))
            raise
        self._deps.failpoint("proxy.opened")
        self._report.mark_sent()
        try:
            return await self._pass_on(await self._forward())
        except BaseException as error:
            self._report.note_failure(error)
            await asyncio.shield(settlement.interrupt())
            raise
        finally:
            self._report.write(self._id, settlement)

    async def _forward(self) -> UpstreamAnswer:
        """The head of OpenAI's answer. Raises ApiError."""
        namespaces, user_id = self._deps.namespaces, self._principal.user_id
        headers = forwarded_headers(self._request.headers, self._id, namespaces, user_id, has_body=True)
        self._report.begin_span(self._opened, headers)
        settlement = self._settlement
        try:
            source = await send(self._deps.upstream, "POST", self._route.path, headers, self._asked.body)
        except ApiError as error:
            settlement.status = error.status
            await settlement.settle(NoAnswer(None if error.code == "upstream_unreachable" else error.code))
            raise
        self._deps.failpoint("proxy.headers")
        settlement.status, settlement.request_id = source.status, request_id_of(source)
        if 400 <= source.status < 500:  # a row that costs nothing: there must be no end of them
            self._deps.limiter.local.note_void(self._use)
        return source

    async def _pass_on(self, source: UpstreamAnswer) -> web.StreamResponse:
        """The answer, relayed, settled and released."""
        # Must not become an attribute: the relay holds `self._note`, and what refers to itself waits for the collector.
        relay = Relay(
            self._request,
            source,
            answer_headers(source.headers, self._id, self._limit_headers),
            self._deps.bounds,
            self._deps.active_relays,
            self._note,
            self._principal.unkey_key_id,
        )
        self._settlement.relay_result = relay.result
        try:
            await self._relay(source, relay)
            await self._settlement.settle(relay.result.describe_end(source.status))
            if source.status == 401:
                raise upstream_refused_us()
            answer = await relay.release()
            self._deps.failpoint("proxy.released")
            return answer
        finally:
            relay.close()

    async def _relay(self, source: UpstreamAnswer, relay: Relay) -> None:
        """Relays all of the answer but its last bytes."""
        shape = self._route.endpoint.stream
        if source.status == 200 and shape is not None and is_event_stream(source, asked=self._asked.stream):
            await relay.relay_stream(StreamMeter(shape, withhold=self._asked.withhold_usage))
        elif source.status != 401:  # which is about us, and would pass to the client as it comes where it is large
            await relay.relay_whole()

    async def _note(self, result: RelayResult) -> None:
        """The response id is in the journal, and its owner known, before the client sees it."""
        self._deps.failpoint("proxy.first_chunk")
        self._deps.recorder.note(NoteRecord(self._id, result.said.response_id, result.deltas))
        settlement = self._settlement
        if self._asked.stored and not settlement.owner_known and result.said.response_id is not None:
            settlement.owner_known = True
            await self._deps.owners.remember([result.said.response_id], self._principal.user_id)
        self._deps.failpoint("proxy.noted")

    async def _give_back(self) -> None:
        """Releases what the limits hold for the call. The hold stays when the call may have run and its cost is
        unknown."""
        if self._settlement.event is None and self._report.sent_s is not None:
            self._deps.limiter.abandon(self._id)
        else:
            await self._deps.limiter.give_back(self._id, self._settlement.event)
