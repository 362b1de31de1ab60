"""What the Stripe stand-in answers: its API under `/v1` and `/v2`, and the control calls of control.py."""

from collections.abc import Callable
from typing import Any

from aiohttp import web

from gateway.sandbox.stripe.billing_routes import Row, billing_rows, takes_both, takes_id, takes_params
from gateway.sandbox.stripe.control import control_routes
from gateway.sandbox.stripe.http import Params, StripeHttp, path_of
from gateway.sandbox.stripe.meters import StripeApiError
from gateway.sandbox.stripe.service import StripeService, StripeState
from gateway.sandbox.stripe.v2 import adjustment_form, event_form, from_v2


def routes(stripe: StripeService, save: Callable[[StripeState], None]) -> list[web.RouteDef]:
    """Everything that the stand-in answers, relative to its prefix; `save` is called after every change."""
    http = StripeHttp(stripe, save)
    found = [web.route(method, path, http.handler(run)) for method, path, run in _rows(stripe)]

    def stream(request: web.Request, body: Params) -> Any:
        return stripe.stream(request.headers.get("Authorization", "").removeprefix("Bearer "), body)

    found.append(web.post("/v2/billing/meter_event_stream", http.handler(stream, session=True)))
    return [*found, *control_routes(http), web.route("*", "/{path:.*}", http.handler(_unknown))]


def _rows(stripe: StripeService) -> list[Row]:
    return [*_customers(stripe), *_usage(stripe), *billing_rows(stripe)]


def _customers(stripe: StripeService) -> list[Row]:
    return [
        ("GET", "/v1/account", lambda _, __: stripe.show_account()),
        ("POST", "/v1/customers", takes_params(stripe.create_customer)),
        ("GET", "/v1/customers", takes_params(stripe.customers.list_all)),
        ("GET", "/v1/customers/{id}", takes_id(stripe.customers.get)),
        ("POST", "/v1/customers/{id}", takes_both(stripe.update_customer)),
        ("DELETE", "/v1/customers/{id}", takes_id(stripe.delete_customer)),
    ]


def _usage(stripe: StripeService) -> list[Row]:
    one = "/v1/billing/meters/{id}"
    return [
        ("POST", "/v1/billing/meters", takes_params(stripe.create_meter)),
        ("GET", "/v1/billing/meters", takes_params(stripe.list_meters)),
        ("GET", one, takes_id(lambda meter_id: stripe.meter(meter_id).form())),
        ("POST", one, takes_both(stripe.rename_meter)),
        ("POST", f"{one}/deactivate", takes_id(lambda meter_id: stripe.set_status(meter_id, "inactive"))),
        ("POST", f"{one}/reactivate", takes_id(lambda meter_id: stripe.set_status(meter_id, "active"))),
        ("GET", f"{one}/event_summaries", takes_both(stripe.summaries)),
        ("POST", "/v1/billing/meter_events", takes_params(lambda form: stripe.add_event(form).form())),
        ("POST", "/v1/billing/meter_event_adjustments", takes_params(stripe.adjust)),
        ("POST", "/v2/billing/meter_events", takes_params(lambda body: event_form(stripe.add_event(from_v2(body))))),
        (
            "POST",
            "/v2/billing/meter_event_adjustments",
            takes_params(lambda body: adjustment_form(stripe.adjust(body), stripe.now())),
        ),
        ("POST", "/v2/billing/meter_event_session", lambda _, __: stripe.open_session()),
        ("GET", "/v2/core/events", takes_params(stripe.list_reports)),
        ("GET", "/v2/core/events/{id}", takes_id(stripe.reports.get)),
    ]


def _unknown(request: web.Request, _: Params) -> Any:
    raise StripeApiError(404, f"Unrecognized request URL ({request.method}: {path_of(request)}).")
