"""The Stripe stand-in's HTTP: its API under `/v1` and `/v2`, idempotency, and the control calls of tests.

GET    /_control          the troubles that wait
POST   /_control          adds one: a JSON object with the fields of `Trouble`; unknown ones are 400
DELETE /_control          no trouble
GET    /_control/events   {"events": […], "rejected": […]}: everything accepted, with customer, value and identifier
GET    /_control/calls    {"calls": {"POST /v1/billing/meter_events": 3, …}, "crowded": 0}: `crowded` counts events
                          that came while another one for the same customer and meter was running
DELETE /_control/calls    counts from 0 again
"""

import asyncio
import json
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

import msgspec
from aiohttp import web

from gateway.sandbox.stripe import Kept, Stripe
from gateway.sandbox.stripe_form import nested, read_form
from gateway.sandbox.stripe_meters import DAY_S, Refused
from gateway.sandbox.stripe_v2 import adjustment_form, event_form, from_v2

Handler = Callable[[web.Request], Awaitable[web.Response]]
Params = dict[str, Any]


class Trouble(msgspec.Struct, forbid_unknown_fields=True):
    """What goes wrong with the next `times` matching requests or, without it, until cleared."""

    times: int | None = None
    path: str | None = None
    """Only requests whose path ends so, as `meter_events`."""
    delay_s: float = 0.0
    """Seconds that the request takes, its place among the concurrent ones kept."""
    status: int | None = None
    """An error instead of the work: 429, 500, 401 and so on."""
    code: str | None = None
    message: str | None = None
    reason: str | None = None
    """Of a 429: `Stripe-Rate-Limited-Reason`."""
    should_retry: bool | None = None
    """The header `stripe-should-retry`."""
    accept: bool = False
    """The work is done all the same; only the answer is an error or lost."""
    drop: bool = False
    """Closes the connection without an answer."""


class Answer(NamedTuple):
    """What was sent, as it is sent again to the same idempotency key."""

    status: int
    body: bytes
    headers: dict[str, str]


class First(NamedTuple):
    """The first request of an idempotency key."""

    fingerprint: str
    at: int
    answer: Answer | None
    """None while it still runs."""


class StripeHttp:
    """One stand-in on the wire."""

    def __init__(self, stripe: Stripe, save: Callable[[Kept], None]) -> None:
        self.stripe: Final = stripe
        self._save: Final = save
        self.troubles: Final[list[Trouble]] = []
        self.calls: Final[Counter[str]] = Counter()
        self.crowded = 0
        self._kept: Final[dict[str, First]] = {}
        self._running: Final[set[tuple[str, str]]] = set()

    def handler(self, run: Callable[[web.Request, Params], Any], *, session: bool = False) -> Handler:
        """The handler of one endpoint; `session` endpoints take a token instead of the secret key."""

        async def handle(request: web.Request) -> web.Response:
            self.calls[f"{request.method} {_path(request)}"] += 1
            trouble = self._take(_path(request))
            try:
                if not session and request.headers.get("Authorization") != f"Bearer {self.stripe.secret_key}":
                    raise Refused(401, "Invalid API Key provided: sk_test_***")
                answer = await self._once(request, trouble, run)
            except Refused as refused:
                answer = _refusal(refused)
            if trouble.drop and request.transport is not None:
                request.transport.close()
            headers = {"Request-Id": f"req_{secrets.token_hex(7)}"} | answer.headers
            return web.Response(
                status=answer.status, body=answer.body, content_type="application/json", headers=headers
            )

        return handle

    async def _once(self, request: web.Request, trouble: Trouble, run: Callable[[web.Request, Params], Any]) -> Answer:
        """Runs a request, or answers as before when its idempotency key has been used. Raises Refused."""
        params = await _params(request)
        key = request.headers.get("Idempotency-Key")
        if key is None or request.method != "POST":
            return await self._run(request, params, trouble, run)
        fingerprint = json.dumps([_path(request), params], sort_keys=True)
        now = self.stripe.now()
        kept = self._kept.get(key)
        if kept is not None and now - kept.at < DAY_S:
            if kept.fingerprint != fingerprint:
                message = f"Keys for idempotent requests can only be used with the parameters of their first use: {key}"
                raise Refused(400, message, kind="idempotency_error")
            if kept.answer is None:
                message = "There is another request in progress with this idempotency key."
                raise Refused(409, message, kind="idempotency_error", code="idempotency_key_in_use")
            return kept.answer._replace(headers=kept.answer.headers | {"idempotent-replayed": "true"})
        self._kept[key] = First(fingerprint, now, None)
        answer = None
        try:
            answer = await self._run(request, params, trouble, run)
            return answer
        finally:
            # What was refused before it ran may be tried again under the same key; what ran is played back.
            if answer is None or (400 <= answer.status < 500):
                del self._kept[key]
            else:
                self._kept[key] = First(fingerprint, now, answer)

    async def _run(
        self, request: web.Request, params: Params, trouble: Trouble, run: Callable[[web.Request, Params], Any]
    ) -> Answer:
        slot = self.stripe.slot(params) if _path(request).endswith("/meter_events") else None
        if slot in self._running:
            self.crowded += 1
            reason = {"Stripe-Rate-Limited-Reason": "endpoint-concurrency"}
            raise Refused(429, "Too many concurrent requests for this customer and meter.", headers=reason)
        if slot is not None:
            self._running.add(slot)
        try:
            await asyncio.sleep(trouble.delay_s)
            if trouble.drop and not trouble.accept:
                # The request never arrived, so its idempotency key is as good as new.
                raise Refused(503, "Nobody reads this: the connection closes.")
            wrong = _told(trouble)
            if wrong is not None and not trouble.accept:
                return _refusal(wrong)
            done = run(request, params)
            if request.method == "POST":
                self._save(self.stripe.kept())
            return Answer(200, msgspec.json.encode(done), {}) if wrong is None else _refusal(wrong)
        finally:
            if slot is not None:
                self._running.discard(slot)

    def _take(self, path: str) -> Trouble:
        for trouble in self.troubles:
            if trouble.path is None or path.endswith(trouble.path):
                if trouble.times is not None:
                    trouble.times -= 1
                    if trouble.times <= 0:
                        self.troubles.remove(trouble)
                return trouble
        return Trouble()


async def _params(request: web.Request) -> Params:
    """The parameters from wherever the request carries them. Raises Refused (400)."""
    try:
        if request.method in ("GET", "DELETE"):
            return nested(request.query.items())
        body = await request.read()
        if not _path(request).startswith("/v2/"):
            return read_form(body.decode())
        return msgspec.json.decode(body, type=dict[str, Any]) if body else {}
    except (ValueError, msgspec.DecodeError, RecursionError) as error:
        raise Refused(400, f"The request could not be read: {error}") from None


def _told(trouble: Trouble) -> Refused | None:
    if trouble.status is None:
        return None
    headers = {} if trouble.reason is None else {"Stripe-Rate-Limited-Reason": trouble.reason}
    if trouble.should_retry is not None:
        headers["stripe-should-retry"] = str(trouble.should_retry).lower()
    kind = "api_error" if trouble.status >= 500 else "invalid_request_error"
    message = trouble.message or "The sandbox was told to say so."
    return Refused(trouble.status, message, kind=kind, code=trouble.code, headers=headers)


def _refusal(refused: Refused) -> Answer:
    return Answer(refused.status, msgspec.json.encode({"error": refused.error}), refused.headers)


def routes(stripe: Stripe, save: Callable[[Kept], None]) -> list[web.RouteDef]:
    """Everything that the stand-in answers, relative to its prefix; `save` is called after every change."""
    http = StripeHttp(stripe, save)
    one = "/v1/billing/meters/{id}"
    v1: list[tuple[str, str, Callable[[web.Request, Params], Any]]] = [
        ("POST", "/v1/customers", lambda _, form: stripe.create_customer(form)),
        ("GET", "/v1/customers", lambda _, query: stripe.list_customers(query)),
        ("GET", "/v1/customers/{id}", lambda request, _: stripe.customer(request.match_info["id"])),
        ("POST", "/v1/billing/meters", lambda _, form: stripe.create_meter(form)),
        ("GET", "/v1/billing/meters", lambda _, query: stripe.list_meters(query)),
        ("GET", one, lambda request, _: stripe.meter(request.match_info["id"]).form()),
        ("POST", one, lambda request, form: stripe.rename_meter(request.match_info["id"], form)),
        ("POST", f"{one}/deactivate", lambda request, _: stripe.set_status(request.match_info["id"], "inactive")),
        ("POST", f"{one}/reactivate", lambda request, _: stripe.set_status(request.match_info["id"], "active")),
        ("GET", f"{one}/event_summaries", lambda request, it: stripe.summaries(request.match_info["id"], it)),
        ("POST", "/v1/billing/meter_events", lambda _, form: stripe.add_event(form).form()),
        ("POST", "/v1/billing/meter_event_adjustments", lambda _, form: stripe.adjust(form)),
        ("POST", "/v2/billing/meter_events", lambda _, body: event_form(stripe.add_event(from_v2(body)))),
        (
            "POST",
            "/v2/billing/meter_event_adjustments",
            lambda _, body: adjustment_form(stripe.adjust(body), stripe.now()),
        ),
        ("POST", "/v2/billing/meter_event_session", lambda _, __: stripe.open_session()),
    ]
    found = [web.route(method, path, http.handler(run)) for method, path, run in v1]

    def stream(request: web.Request, body: Params) -> Any:
        return stripe.stream(request.headers.get("Authorization", "").removeprefix("Bearer "), body)

    found.append(web.post("/v2/billing/meter_event_stream", http.handler(stream, session=True)))
    return [*found, *_control(http), web.route("*", "/{path:.*}", http.handler(_unknown))]


def _path(request: web.Request) -> str:
    """The path without the prefix under which the stand-in is mounted."""
    return request.path[max(request.path.find("/v1/"), request.path.find("/v2/"), 0) :]


def _unknown(request: web.Request, _: Params) -> Any:
    raise Refused(404, f"Unrecognized request URL ({request.method}: {_path(request)}).")


def _control(http: StripeHttp) -> list[web.RouteDef]:
    async def waiting(_: web.Request) -> web.Response:
        return _json({"troubles": http.troubles})

    async def add(request: web.Request) -> web.Response:
        try:
            http.troubles.append(msgspec.json.decode(await request.read(), type=Trouble))
        except msgspec.DecodeError as error:
            return _json({"error": str(error)}, 400)
        return await waiting(request)

    async def clear(request: web.Request) -> web.Response:
        http.troubles.clear()
        return await waiting(request)

    async def events(_: web.Request) -> web.Response:
        return _json({"events": http.stripe.events, "rejected": http.stripe.rejected})

    async def calls(_: web.Request) -> web.Response:
        return _json({"calls": dict(http.calls), "crowded": http.crowded})

    async def forget(request: web.Request) -> web.Response:
        http.calls.clear()
        http.crowded = 0
        return await calls(request)

    return [
        web.get("/_control", waiting),
        web.post("/_control", add),
        web.delete("/_control", clear),
        web.get("/_control/events", events),
        web.get("/_control/calls", calls),
        web.delete("/_control/calls", forget),
    ]


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(value), content_type="application/json")
