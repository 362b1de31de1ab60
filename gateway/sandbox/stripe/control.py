"""The control calls of the Stripe stand-in: what a test sets and sees beside Stripe's API.

GET    /_control            the troubles that wait
POST   /_control            adds one: a JSON object with the fields of `StripeTrouble`; unknown ones are 400
DELETE /_control            no trouble
GET    /_control/calls      {"calls": {"POST /v1/billing/meter_events": 3, …}, "crowded": 0}: `crowded` counts events
                            that came while another one for the same customer and meter was running
DELETE /_control/calls      counts from 0 again
GET    /_control/events     {"events": […], "uncounted": […]}: everything counted, with customer, value and identifier;
                            and everything received with a 200 and never counted, with why
POST   /_control/customers  {"id": "cus_1", "livemode": false, "currency": "eur"}: a customer with an id of one's own; a
                            live one is of the other mode, and this key does not see it
GET    /_control/clock      {"now": 1795392000}
POST   /_control/clock      {"now": 1795392000} or {"advance_s": 3600}; with "frozen": true it stands still then:
                            moves the time ahead, and does all that falls due on the way; it never goes back
POST   /_control/settings   the fields of `AccountSettings`: grace, and whether automatic charges succeed
POST   /_control/ways       the fields of `Ways`: what Stripe does where nobody knows it
POST   /_control/endpoints  the fields of `WebhookEndpoint`: an event destination; loopback only
DELETE /_control/endpoints  no destination, and nothing waits
GET    /_control/deliveries {"pending": […], "done": […]}: each with its event, url and the statuses answered
POST   /_control/deliveries the fields of `DeliveryOrder`: sends what waits, or what is named: {"told": [{"event",
                            "type", "status"}], "pending": 0}; what was not answered with 2xx goes on waiting
POST   /_control/report     reports at once what was not counted, rather than when its ten seconds are over, and tells
                            the endpoints: {"reported": [thin events], "told": [their statuses]}
"""

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from gateway.sandbox.stripe.http import StripeHttp, StripeTrouble
from gateway.sandbox.stripe.objects import AccountSettings
from gateway.sandbox.stripe.service import StripeService, Ways
from gateway.sandbox.stripe.webhooks import DeliveryOrder, StripeDelivery, WebhookEndpoint


class CustomerOrder(msgspec.Struct, forbid_unknown_fields=True):
    """A customer as a test orders one."""

    id: str
    email: str | None = None
    livemode: bool = False
    currency: str | None = None


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
    return [
        *_control_troubles(http), *_control_world(http.stripe, http), *_control_account(http), *_control_webhooks(http),
    ]  # fmt: skip


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
        stripe.settle()
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
        texts = {"email": given.email, "currency": given.currency}
        stripe.customers.add(stripe.now(), texts, customer_id=given.id, livemode=given.livemode)
        http.save()
        return _json({"id": given.id})

    async def set_ways(request: web.Request) -> web.Response:
        try:
            stripe.ways = msgspec.json.decode(await request.read(), type=Ways)
        except msgspec.DecodeError as error:
            return _json({"error": str(error)}, 400)
        return _json(stripe.ways)

    async def report(_: web.Request) -> web.Response:
        made = stripe.report(at_once=True)
        http.save()
        told = await stripe.webhooks.deliver(DeliveryOrder(types=list({event["type"] for event in made})))
        return _json({"reported": made, "told": [one["status"] for one in told]})

    return [
        web.get("/_control/events", events),
        web.post("/_control/customers", add_customer),
        web.post("/_control/ways", set_ways),
        web.post("/_control/report", report),
    ]


def _control_webhooks(http: StripeHttp) -> list[web.RouteDef]:
    webhooks = http.stripe.webhooks

    def add_endpoint(endpoint: WebhookEndpoint) -> Any:
        webhooks.add(endpoint)
        return {"url": endpoint.url}

    async def forget_endpoints(_: web.Request) -> web.Response:
        webhooks.endpoints.clear()
        webhooks.pending.clear()
        return _json({})

    async def show(_: web.Request) -> web.Response:
        return _json({name: [_shown(one) for one in getattr(webhooks, name)] for name in ("pending", "done")})

    async def deliver(request: web.Request) -> web.Response:
        try:
            order = msgspec.json.decode(await request.read(), type=DeliveryOrder)
        except msgspec.DecodeError as error:
            return _json({"error": str(error)}, 400)
        http.stripe.settle()
        told = await webhooks.deliver(order)
        return _json({"told": told, "pending": len(webhooks.pending)})

    return [
        web.post("/_control/endpoints", _takes(WebhookEndpoint, add_endpoint)),
        web.delete("/_control/endpoints", forget_endpoints),
        web.get("/_control/deliveries", show),
        web.post("/_control/deliveries", deliver),
    ]


def _shown(delivery: StripeDelivery) -> dict[str, Any]:
    event = delivery.event
    return {
        "event": event["id"], "type": event["type"], "url": delivery.endpoint.url, "statuses": delivery.statuses,
    }  # fmt: skip


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(value), content_type="application/json")
