"""The proxy's front door: every request of the public port, and every refusal in OpenAI's envelope.

Must not: spend anything on a path that is not in the catalogue, or let an exception reach the client bare.
"""

from typing import Final

from aiohttp import web

from gateway.access.admission import Principal
from gateway.http.credentials import key_of
from gateway.http.errors import as_refusal, forget_frames
from gateway.http.framing import CLOSING, EVENT_ID, check_framing, refusal
from gateway.kit.errors import ApiError
from gateway.kit.ids import unix_ms_of, uuid7
from gateway.openai import routing as endpoints
from gateway.openai.headers import answer_headers, forwarded_headers, is_event_stream, request_id_of
from gateway.openai.request import read_counted
from gateway.openai.routing import MatchedRoute
from gateway.openai.upstream import UpstreamAnswer
from gateway.proxy.begun import AnswerBegun, end
from gateway.proxy.call import MeteredCall
from gateway.proxy.dependencies import Dependencies
from gateway.proxy.free import answer_whole, check_shown, discard
from gateway.proxy.relay import Relay
from gateway.proxy.relay_result import RelayResult
from gateway.proxy.request_info import RequestInfo
from gateway.proxy.send import send, upstream_refused_us
from gateway.proxy.unrouted import answer_unrouted
from pricing.stream import StreamMeter


class Proxy:
    """Handles the requests of one process."""

    def __init__(self, deps: Dependencies) -> None:
        self._deps: Final = deps

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Never raises: what goes wrong is an answer."""
        started_s = self._deps.clock()
        event_id = self.new_id(started_s)
        metrics = self._deps.metrics
        metrics.running += 1
        begun: AnswerBegun | None = None
        info = RequestInfo(request)
        try:
            return await self._route(request, event_id, started_s, info)
        except AnswerBegun as raised:
            begun, refused = raised, as_refusal(raised.__cause__ or raised, event_id)
            forget_frames(begun)
        except Exception as error:  # noqa: BLE001  # the last resort of a server; as_refusal logs it
            refused = as_refusal(error, event_id)
        finally:
            metrics.running -= 1
        if begun is not None:
            self._count(info, event_id, refused)
            return await end(request, begun, refused)
        return self.refuse(info, event_id, refused)

    def refuse(self, info: RequestInfo, event_id: str, refused: ApiError) -> web.Response:
        """The answer to a request that is refused, counted and logged."""
        self._count(info, event_id, refused)
        answer = refusal(refused, event_id)
        if self._deps.active_relays.closing or refused.code in CLOSING:
            answer.force_close()
        return answer

    def _count(self, info: RequestInfo, event_id: str, refused: ApiError) -> None:
        self._deps.metrics.count_refused(refused.code)
        if not info.is_logged:
            self._deps.log.log_refused(event_id, info, refused, self._deps.clock() * 1000 - unix_ms_of(event_id))

    def new_id(self, unix_s: float | None = None) -> str:
        """A fresh event id, of now or of the instant `unix_s`."""
        at_s = self._deps.clock() if unix_s is None else unix_s
        return uuid7(int(at_s * 1000), self._deps.random_bits(80))

    async def _route(
        self, request: web.BaseRequest, event_id: str, started_s: float, info: RequestInfo
    ) -> web.StreamResponse:
        path = request.raw_path
        method = "GET" if request.method == "HEAD" else request.method
        if method == "GET" and path in ("/healthz", "/readyz"):
            return self._health(path, event_id)
        check_framing(request)
        route = endpoints.match(method, path)
        if route is None:
            return answer_unrouted(request, self._deps.cors)
        key = key_of(request.headers)
        endpoint = info.endpoint = route.endpoint.name
        principal = info.principal = await self._deps.admission.admit(key, endpoint=endpoint, peer=request.remote)
        self._deps.clients.own(request.protocol, principal.unkey_key_id)
        if route.endpoint.kind == "metered":
            return await self._metered(info, route, principal, event_id, started_s)
        self._deps.limiter.local.take_free(principal.unkey_key_id)
        if endpoint == "traces.ingest" and not self._deps.forward_traces:
            answer = discard(event_id)
            self._report_free(info, event_id, started_s, endpoint, answer.status)
            return answer
        principal.check_endpoint(endpoint)
        if principal.due:
            self._deps.admission.renew(key, endpoint=endpoint)
        return await self._free(info, route, principal, event_id, started_s)

    async def _metered(
        self, info: RequestInfo, route: MatchedRoute, principal: Principal, event_id: str, started_s: float
    ) -> web.StreamResponse:
        """Counted here before its body is read, and at Redis once the call is known."""
        local, key_limits = self._deps.limiter.local, principal.key_limits
        use = local.begin(principal.unkey_key_id, key_limits)
        refused: ApiError | None = None
        try:
            principal.check_endpoint(route.endpoint.name)
            return await MeteredCall(self._deps, info, route, principal, event_id, started_s, use).run()
        except ApiError as error:
            refused = error
            raise
        finally:
            local.end(use, key_limits, refused)

    def _health(self, path: str, event_id: str) -> web.Response:
        """Alive; and ready only while a call can be let in and recorded."""
        body, relays = {"status": "ok"}, self._deps.active_relays
        if path == "/readyz":
            failures = {"journal": self._deps.recorder.failure, "postgres": self._deps.plans.failure}
            wrong = {what: failure for what, failure in failures.items() if failure is not None}
            body = {"status": "not ready", **wrong} if wrong else body
        if path == "/readyz" and relays.closing and not relays.is_replaced:
            body = {"status": "stopping"}
        status = 200 if body["status"] == "ok" else 503
        answer = web.json_response(body, status=status, headers={EVENT_ID: event_id})
        if relays.closing:
            answer.force_close()
        return answer

    async def _free(
        self, info: RequestInfo, route: MatchedRoute, principal: Principal, event_id: str, started_s: float
    ) -> web.StreamResponse:
        """Costs nothing and has no row; an object must be the caller's own."""
        deps, request = self._deps, info.request
        if route.object_id is not None:
            await deps.owners.check_response(route.object_id, principal.user_id)
        check_shown(route, principal.allowed)
        body = await deps.clients.uploads.read(request, deps.bounds.body_bytes_max, principal.unkey_key_id)
        if route.endpoint.kind == "counted":
            refers = await deps.judge.read(read_counted, route.endpoint.name, body, principal.unkey_key_id)
            await deps.owners.check(refers, principal.user_id)
        user_id, has_body = principal.user_id, bool(body)
        headers = forwarded_headers(request.headers, event_id, deps.namespaces, user_id, has_body=has_body)
        source = await send(deps.upstream, route.endpoint.method, route.path, headers, body or None)
        info.request_id = request_id_of(source)
        if source.status == 401:
            source.close()
            raise upstream_refused_us()
        answer: web.StreamResponse | None = await answer_whole(request, route, source, principal.allowed, event_id)
        if answer is None:
            answer = await self._relay_free(request, route, source, event_id, principal.unkey_key_id)
        self._report_free(info, event_id, started_s, route.endpoint.name, source.status)
        return answer

    def _report_free(self, info: RequestInfo, event_id: str, started_s: float, endpoint: str, status: int) -> None:
        self._deps.metrics.count_free(endpoint, status)
        self._deps.log.log_free(event_id, info, status, (self._deps.clock() - started_s) * 1000)

    async def _relay_free(
        self, request: web.BaseRequest, route: MatchedRoute, source: UpstreamAnswer, event_id: str, key: str
    ) -> web.StreamResponse:
        deps = self._deps
        headers = answer_headers(source.headers, event_id)
        relay = Relay(request, source, headers, deps.bounds, deps.active_relays, _nothing_to_note, key)
        try:
            if is_event_stream(source) and route.endpoint.stream is not None:
                await relay.relay_stream(StreamMeter(route.endpoint.stream))
            else:
                await relay.relay_whole()
            return await relay.release()
        except Exception as error:
            client = relay.result.client
            if client is not None and client.prepared:
                raise AnswerBegun(relay.result, client) from error
            raise
        finally:
            relay.close()


async def _nothing_to_note(_: RelayResult) -> None:
    """A free call leaves no trace in the journal."""
