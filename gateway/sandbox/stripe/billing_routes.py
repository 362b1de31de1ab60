"""Which endpoint of the Stripe stand-in does what, of everything that billing.py has."""

from collections.abc import Callable
from typing import Any

from aiohttp import web

from gateway.sandbox.stripe.destinations import DESTINATION, ENDPOINT
from gateway.sandbox.stripe.http import Params
from gateway.sandbox.stripe.objects import Account
from gateway.sandbox.stripe.service import StripeService

Run = Callable[[web.Request, Params], Any]
Row = tuple[str, str, Run]


def takes_params(run: Callable[[Params], Any]) -> Run:
    """An endpoint without an object in its path."""
    return lambda _, params: run(params)


def takes_both(run: Callable[[str, Params], Any]) -> Run:
    """An endpoint of one object, with parameters."""
    return lambda request, params: run(request.match_info["id"], params)


def takes_id(run: Callable[[str], Any]) -> Run:
    """An endpoint of one object alone."""
    return lambda request, _: run(request.match_info["id"])


def _reads(account: Account, kind: str) -> Run:
    return lambda request, _: account.get(kind, request.match_info["id"])


def billing_rows(stripe: StripeService) -> list[Row]:
    """All of them."""
    events: list[Row] = [
        ("GET", "/v1/events", takes_params(stripe.log.list_all)),
        ("GET", "/v1/events/{id}", _reads(stripe.account, "event")),
    ]
    return [
        *_sales(stripe), *_invoicing(stripe), *_credits(stripe), *_alerts(stripe), *events, *_destinations(stripe),
    ]  # fmt: skip


def _sales(stripe: StripeService) -> list[Row]:
    catalog, subscriptions, account = stripe.billing.catalog, stripe.billing.subscriptions, stripe.account
    return [
        ("POST", "/v1/products", takes_params(catalog.create_product)),
        ("GET", "/v1/products", takes_params(catalog.list_products)),
        ("GET", "/v1/products/{id}", _reads(account, "product")),
        ("POST", "/v1/products/{id}", takes_both(catalog.update_product)),
        ("POST", "/v1/prices", takes_params(catalog.create_price)),
        ("GET", "/v1/prices", takes_params(catalog.list_prices)),
        ("GET", "/v1/prices/{id}", _reads(account, "price")),
        ("POST", "/v1/prices/{id}", takes_both(catalog.update_price)),
        ("POST", "/v1/subscriptions", takes_params(subscriptions.create)),
        ("GET", "/v1/subscriptions", takes_params(subscriptions.list_all)),
        ("GET", "/v1/subscriptions/{id}", _reads(account, "subscription")),
        ("POST", "/v1/subscriptions/{id}", takes_both(subscriptions.update)),
        ("DELETE", "/v1/subscriptions/{id}", takes_both(subscriptions.cancel)),
        ("GET", "/v1/subscription_items", takes_params(subscriptions.list_items)),
        ("GET", "/v1/subscription_items/{id}", _reads(account, "subscription_item")),
    ]


def _invoicing(stripe: StripeService) -> list[Row]:
    invoices, items, account = stripe.billing.invoices, stripe.billing.invoice_items, stripe.account
    notes = stripe.billing.credit_notes
    return [
        ("POST", "/v1/invoices", takes_params(stripe.billing.create_invoice)),
        ("GET", "/v1/invoices", takes_params(invoices.list_all)),
        ("GET", "/v1/invoices/{id}", _reads(account, "invoice")),
        ("POST", "/v1/invoices/{id}", takes_both(invoices.update)),
        ("DELETE", "/v1/invoices/{id}", takes_id(invoices.delete)),
        ("GET", "/v1/invoices/{id}/lines", takes_both(invoices.list_lines)),
        ("POST", "/v1/invoices/{id}/finalize", takes_both(invoices.finalize)),
        ("POST", "/v1/invoices/{id}/pay", takes_both(invoices.pay)),
        ("POST", "/v1/invoices/{id}/void", takes_id(invoices.void)),
        ("POST", "/v1/invoices/{id}/mark_uncollectible", takes_id(invoices.mark_uncollectible)),
        ("POST", "/v1/invoiceitems", takes_params(items.create)),
        ("GET", "/v1/invoiceitems", takes_params(items.list_all)),
        ("GET", "/v1/invoiceitems/{id}", _reads(account, "invoiceitem")),
        ("DELETE", "/v1/invoiceitems/{id}", takes_id(items.delete)),
        ("POST", "/v1/credit_notes", takes_params(notes.create)),
        ("GET", "/v1/credit_notes", takes_params(notes.list_all)),
        ("GET", "/v1/credit_notes/{id}", _reads(account, "credit_note")),
        ("POST", "/v1/credit_notes/{id}", takes_both(notes.update)),
        ("POST", "/v1/credit_notes/{id}/void", takes_id(notes.void)),
    ]


def _credits(stripe: StripeService) -> list[Row]:
    grants, balances, account = stripe.billing.credit_grants, stripe.billing.balances, stripe.account
    one, of_customer = "/v1/billing/credit_grants/{id}", "/v1/customers/{id}/balance_transactions"
    return [
        ("POST", "/v1/billing/credit_grants", takes_params(grants.create)),
        ("GET", "/v1/billing/credit_grants", takes_params(grants.list_all)),
        ("GET", one, _reads(account, "billing.credit_grant")),
        ("POST", one, takes_both(grants.update)),
        ("POST", f"{one}/expire", takes_id(grants.expire)),
        ("POST", f"{one}/void", takes_id(grants.void)),
        ("GET", "/v1/billing/credit_balance_summary", takes_params(grants.summary)),
        ("GET", "/v1/billing/credit_balance_transactions", takes_params(grants.list_transactions)),
        ("GET", "/v1/billing/credit_balance_transactions/{id}", _reads(account, "billing.credit_balance_transaction")),
        ("POST", of_customer, takes_both(balances.create)),
        ("GET", of_customer, takes_both(balances.list_all)),
        (
            "GET",
            f"{of_customer}/{{transaction}}",
            lambda request, _: balances.get(request.match_info["id"], request.match_info["transaction"]),
        ),
    ]


def _alerts(stripe: StripeService) -> list[Row]:
    alerts, one = stripe.billing.alerts, "/v1/billing/alerts/{id}"
    return [
        ("POST", "/v1/billing/alerts", takes_params(alerts.create)),
        ("GET", "/v1/billing/alerts", takes_params(alerts.list_all)),
        ("GET", one, _reads(stripe.account, "billing.alert")),
        ("POST", f"{one}/activate", takes_id(lambda alert_id: alerts.set_status(alert_id, "active"))),
        ("POST", f"{one}/deactivate", takes_id(lambda alert_id: alerts.set_status(alert_id, "inactive"))),
        ("POST", f"{one}/archive", takes_id(lambda alert_id: alerts.set_status(alert_id, "archived"))),
    ]


def _destinations(stripe: StripeService) -> list[Row]:
    made, account = stripe.destinations, stripe.account
    v1, v2 = "/v1/webhook_endpoints", "/v2/core/event_destinations"
    return [
        ("POST", v1, takes_params(made.create_endpoint)),
        ("GET", v1, takes_params(made.list_endpoints)),
        ("GET", f"{v1}/{{id}}", _reads(account, ENDPOINT)),
        ("POST", f"{v1}/{{id}}", takes_both(made.update_endpoint)),
        ("DELETE", f"{v1}/{{id}}", takes_id(made.delete(ENDPOINT))),
        ("POST", v2, takes_params(made.create_destination)),
        ("GET", v2, takes_params(made.list_destinations)),
        ("GET", f"{v2}/{{id}}", takes_both(made.get_destination)),
        ("POST", f"{v2}/{{id}}", takes_both(made.update_destination)),
        ("DELETE", f"{v2}/{{id}}", takes_id(made.delete(DESTINATION))),
        ("POST", f"{v2}/{{id}}/enable", takes_id(made.set_status("enabled"))),
        ("POST", f"{v2}/{{id}}/disable", takes_id(made.set_status("disabled"))),
    ]
