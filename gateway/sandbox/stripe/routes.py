"""What the Stripe stand-in answers: its API under `/v1` and `/v2`, and the control calls of tests.

GET    /_control            the troubles that wait
POST   /_control            adds one: a JSON object with the fields of `StripeTrouble`; unknown ones are 400
DELETE /_control            no trouble
GET    /_control/calls      {"calls": {"POST /v1/billing/meter_events": 3, …}, "crowded": 0}: `crowded` counts events
                            that came while another one for the same customer and meter was running
DELETE /_control/calls      counts from 0 again
GET    /_control/events     {"events": […], "uncounted": […]}: everything counted, with customer, value and identifier;
                            and everything received with a 200 and never counted, with why
POST   /_control/customers  {"id": "cus_1", "livemode": false}: a customer with an id of one's own; a live one is of the
                            other mode, and this key does not see it
POST   /_control/ways       the fields of `Ways`: what Stripe does where nobody knows it
POST   /_control/endpoints  {"url": …, "secret": "whsec_…"}: who is told of thin events; loopback only
POST   /_control/report     reports at once what was not counted, rather than when its ten seconds are over, and tells
                            the endpoints: {"reported": [thin events], "told": [their statuses]}
"""

from collections.abc import Callable
from itertools import product
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import msgspec
from aiohttp import web

from gateway.sandbox.stripe.http import Params, StripeHttp, StripeTrouble, path_of
from gateway.sandbox.stripe.meters import StripeApiError
from gateway.sandbox.stripe.reports import WebhookEndpoint, notification, signature
from gateway.sandbox.stripe.service import StripeService, StripeState, Ways
from gateway.sandbox.stripe.v2 import adjustment_form, event_form, from_v2

LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


class CustomerOrder(msgspec.Struct, forbid_unknown_fields=True):
    """A customer as a test orders one."""

    id: str
    email: str | None = None
    livemode: bool = False


def routes(stripe: StripeService, save: Callable[[StripeState], None]) -> list[web.RouteDef]:
    """Everything that the stand-in answers, relative to its prefix; `save` is called after every change."""
    http = StripeHttp(stripe, save)
    one = "/v1/billing/meters/{id}"
    v1: list[tuple[str, str, Callable[[web.Request, Params], Any]]] = [
        ("GET", "/v1/account", lambda _, __: stripe.account()),
        ("POST", "/v1/customers", lambda _, form: stripe.create_customer(form)),
        ("GET", "/v1/customers", lambda _, query: stripe.customers.list_all(query)),
        ("GET", "/v1/customers/{id}", lambda request, _: stripe.customers.get(request.match_info["id"])),
        ("DELETE", "/v1/customers/{id}", lambda request, _: stripe.customers.delete(request.match_info["id"])),
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
        ("GET", "/v2/core/events", lambda _, query: stripe.list_reports(query)),
        ("GET", "/v2/core/events/{id}", lambda request, _: stripe.reports.get(request.match_info["id"])),
    ]
    found = [web.route(method, path, http.handler(run)) for method, path, run in v1]

    def stream(request: web.Request, body: Params) -> Any:
        return stripe.stream(request.headers.get("Authorization", "").removeprefix("Bearer "), body)

    found.append(web.post("/v2/billing/meter_event_stream", http.handler(stream, session=True)))
    return [*found, *_control(http), web.route("*", "/{path:.*}", http.handler(_unknown))]


def _unknown(request: web.Request, _: Params) -> Any:
    raise StripeApiError(404, f"Unrecognized request URL ({request.method}: {path_of(request)}).")


def _control(http: StripeHttp) -> list[web.RouteDef]:
    return [*_control_troubles(http), *_control_world(http.stripe, http)]


def _control_troubles(http: StripeHttp) -> list[web.RouteDef]:
    async def waiting(_: web.Request) -> web.Response:
        return _json({"troubles": http.troubles})

    async def add(request: web.Request) -> web.Response:
        try:
            http.troubles.append(msgspec.json.decode(await request.read(), type=StripeTrouble))
        except msgspec.DecodeError as error:
            return _json({"error": str(error)}, 400)
        return await waiting(request)

    async def clear(request: web.Request) -> web.Response:
        http.troubles.clear()
        return await waiting(request)

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
        web.get("/_control/calls", calls),
        web.delete("/_control/calls", forget),
    ]


def _control_world(stripe: StripeService, http: StripeHttp) -> list[web.RouteDef]:
    async def events(_: web.Request) -> web.Response:
        return _json({"events": stripe.events, "uncounted": stripe.reports.uncounted})

    async def add_customer(request: web.Request) -> web.Response:
        try:
            given = msgspec.json.decode(await request.read(), type=CustomerOrder)
        except msgspec.DecodeError as error:
            return _json({"error": str(error)}, 400)
        stripe.customers.add(stripe.now(), {"email": given.email}, customer_id=given.id, livemode=given.livemode)
        http.save()
        return _json({"id": given.id})

    async def set_ways(request: web.Request) -> web.Response:
        try:
            stripe.ways = msgspec.json.decode(await request.read(), type=Ways)
        except msgspec.DecodeError as error:
            return _json({"error": str(error)}, 400)
        return _json(stripe.ways)

    async def add_endpoint(request: web.Request) -> web.Response:
        try:
            endpoint = msgspec.json.decode(await request.read(), type=WebhookEndpoint)
        except msgspec.DecodeError as error:
            return _json({"error": str(error)}, 400)
        if urlsplit(endpoint.url).hostname not in LOOPBACK:
            return _json({"error": "url: loopback only"}, 400)
        stripe.reports.endpoints.append(endpoint)
        return _json({"url": endpoint.url})

    async def report(_: web.Request) -> web.Response:
        made = stripe.reports.report(stripe.now(), at_once=True)
        http.save()
        return _json({"reported": made, "told": await _tell(stripe, made)})

    return [
        web.get("/_control/events", events),
        web.post("/_control/customers", add_customer),
        web.post("/_control/ways", set_ways),
        web.post("/_control/endpoints", add_endpoint),
        web.post("/_control/report", report),
    ]


async def _tell(stripe: StripeService, made: list[dict[str, Any]]) -> list[int]:
    """Posts the notification of each event to each endpoint: the statuses that they answered."""
    statuses = []
    async with aiohttp.ClientSession() as session:
        for event, endpoint in product(made, stripe.reports.endpoints):
            body = msgspec.json.encode(notification(event))
            signed = signature(body, endpoint.secret, stripe.now())
            headers = {"Content-Type": "application/json; charset=utf-8", "Stripe-Signature": signed}
            async with session.post(endpoint.url, data=body, headers=headers) as response:
                statuses.append(response.status)
    return statuses


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(value), content_type="application/json")
