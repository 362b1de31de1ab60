"""The control calls of the Stripe stand-in: what a test sets and sees beside Stripe's API.

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
GET    /_control/clock      {"now": 1795392000}
POST   /_control/clock      {"now": 1795392000} or {"advance_s": 3600}; with "frozen": true it stands still then:
                            moves the time ahead, and does all that falls due on the way; it never goes back
POST   /_control/settings   the fields of `AccountSettings`: grace, and whether automatic charges succeed
POST   /_control/ways       the fields of `Ways`: what Stripe does where nobody knows it
POST   /_control/endpoints  {"url": …, "secret": "whsec_…"}: who is told of thin events; loopback only
POST   /_control/report     reports at once what was not counted, rather than when its ten seconds are over, and tells
                            the endpoints: {"reported": [thin events], "told": [their statuses]}
"""

from collections.abc import Callable
from itertools import product
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec
from aiohttp import web

from gateway.sandbox.stripe.http import StripeHttp, StripeTrouble
from gateway.sandbox.stripe.objects import AccountSettings
from gateway.sandbox.stripe.reports import WebhookEndpoint, notification, signature
from gateway.sandbox.stripe.service import StripeService, Ways

LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


class CustomerOrder(msgspec.Struct, forbid_unknown_fields=True):
    """A customer as a test orders one."""

    id: str
    email: str | None = None
    livemode: bool = False


class ClockOrder(msgspec.Struct, forbid_unknown_fields=True):
    """Where the clock is moved: one of the two."""

    now: int | None = None
    """Unix seconds."""
    advance_s: int | None = None
    frozen: bool = False

    def __post_init__(self) -> None:
        if (self.now is None) == (self.advance_s is None):
            raise ValueError("either now or advance_s")


Ordered = TypeVar("Ordered", bound=msgspec.Struct)
Act = Callable[[Ordered], Any]


def control_routes(http: StripeHttp) -> list[web.RouteDef]:
    """All control calls."""
    return [*_control_troubles(http), *_control_world(http.stripe, http), *_control_account(http)]


def _takes(kind: type[Ordered], act: Act[Ordered]) -> Callable[[web.Request], Any]:
    """A control call that takes a JSON object; 400 for one that cannot be."""

    async def handle(request: web.Request) -> web.Response:
        try:
            return _json(act(msgspec.json.decode(await request.read(), type=kind)))
        except (msgspec.DecodeError, ValueError) as error:
            return _json({"error": str(error)}, 400)

    return handle


def _control_account(http: StripeHttp) -> list[web.RouteDef]:
    stripe, clock = http.stripe, http.stripe.account.clock

    async def show_clock(_: web.Request) -> web.Response:
        return _json({"now": clock.latest()})

    def move_clock(order: ClockOrder) -> Any:
        target = order.now if order.now is not None else clock.latest() + (order.advance_s or 0)
        clock.move_to(target, is_frozen=order.frozen)
        stripe.billing.settle()
        http.save()
        return {"now": clock.latest()}

    def set_account(settings: AccountSettings) -> AccountSettings:
        stripe.account.settings = settings
        http.save()
        return settings

    return [
        web.get("/_control/clock", show_clock),
        web.post("/_control/clock", _takes(ClockOrder, move_clock)),
        web.post("/_control/settings", _takes(AccountSettings, set_account)),
    ]


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
