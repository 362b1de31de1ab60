"""Every object of the Stripe stand-in has the members, types and enums that Stripe's SDK declares."""

import json
from typing import Any

import pytest
import stripe

from tests.support.stand_ins import control
from tests.support.stripe_shop import DAY, HOUR, JANUARY, START, Shop
from tests.support.stripe_types import differences


async def plain(shop: Shop, path: str) -> Any:
    """The JSON as it is on the wire."""
    return json.loads((await shop.client.raw_request_async("get", path)).body)


async def make_everything(shop: Shop) -> str:
    """A customer with at least one object of each kind; its id."""
    await shop.move_to(START + 2 * DAY)  # within 30 days of the invoice: events are told for as long
    client, subscription = shop.client, await shop.subscribe(billing_cycle_anchor=JANUARY)
    who = subscription.customer
    grant: Any = {
        "customer": who,
        "amount": {"type": "monetary", "monetary": {"currency": "usd", "value": 30}},
        "applicability_config": {"scope": {"price_type": "metered"}},
        "name": "welcome",
    }
    await client.v1.billing.credit_grants.create_async(grant)
    item: Any = {"customer": who, "amount": 500, "currency": "usd", "description": "set-up"}
    await client.v1.invoice_items.create_async(item)
    threshold = {"gte": 1, "meter": shop.price.recurring.meter, "recurrence": "one_time"}
    alert: Any = {"alert_type": "usage_threshold", "title": "one", "usage_threshold": threshold}
    await client.v1.billing.alerts.create_async(alert)
    await shop.use(who, 1_000_000, START + 2 * DAY)
    await shop.move_to(JANUARY + HOUR)
    (invoice,) = await shop.invoices()
    note: Any = {"invoice": invoice.id, "amount": 50, "credit_amount": 50}
    await client.v1.credit_notes.create_async(note)
    return str(who)


async def test_objects_are_as_the_sdk_declares_them(shop: Shop) -> None:
    who = await make_everything(shop)
    await shop.move_to(JANUARY + 31 * DAY)  # makes a draft
    summary = f"/v1/billing/credit_balance_summary?customer={who}&filter[type]=applicability_scope"
    kinds: list[tuple[str, Any]] = [
        ("/v1/products", stripe.Product),
        ("/v1/prices", stripe.Price),
        ("/v1/subscriptions", stripe.Subscription),
        ("/v1/invoices", stripe.Invoice),
        ("/v1/invoiceitems", stripe.InvoiceItem),
        ("/v1/credit_notes", stripe.CreditNote),
        (f"/v1/customers/{who}/balance_transactions", stripe.CustomerBalanceTransaction),
        ("/v1/billing/credit_grants", stripe.billing.CreditGrant),
        ("/v1/billing/credit_balance_transactions", stripe.billing.CreditBalanceTransaction),
        ("/v1/billing/alerts", stripe.billing.Alert),
        ("/v1/billing/meters", stripe.billing.Meter),
        ("/v1/events", stripe.Event),
        (f"{summary}&filter[applicability_scope][price_type]=metered", stripe.billing.CreditBalanceSummary),
    ]
    for path, resource in kinds:
        answer = await plain(shop, path)
        found = answer["data"] if answer["object"] == "list" else [answer]
        assert found, path
        assert [one for each in found for one in differences(each, resource)] == []
    subscription = (await plain(shop, "/v1/subscriptions"))["data"][0]
    for each in subscription["items"]["data"]:
        assert differences(each, stripe.SubscriptionItem) == []
        assert differences(each["plan"], stripe.Plan) == []
    for invoice in (await plain(shop, "/v1/invoices"))["data"]:
        for line in invoice["lines"]["data"]:
            assert differences(line, stripe.InvoiceLineItem) == []
    (note,) = (await plain(shop, "/v1/credit_notes"))["data"]
    for line in note["lines"]["data"]:
        assert differences(line, stripe.CreditNoteLineItem) == []


async def test_told_objects_are_too(shop: Shop) -> None:
    await make_everything(shop)
    await control(shop.sandbox, "stripe", "/report")
    resources: dict[str, Any] = {
        "invoice": stripe.Invoice,
        "subscription": stripe.Subscription,
        "credit_note": stripe.CreditNote,
        "billing.credit_grant": stripe.billing.CreditGrant,
        "billing.alert_triggered": stripe.billing.AlertTriggered,
    }
    told = (await plain(shop, "/v1/events?limit=100"))["data"]
    seen = set()
    for event in told:
        about = event["data"]["object"]
        if about["object"] in resources:
            seen.add(about["object"])
            assert differences(about, resources[about["object"]]) == [], event["type"]
    assert seen == set(resources)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"status": "lost"}, "Invoice.status: 'lost' is not of the enum"),
        ({"total": None}, "Invoice.total: missing or null"),
        ({"total": "5"}, "Invoice.total: int is expected, not '5'"),
        ({"customer": {}}, "Invoice.customer: an id is expected, not {}"),
        ({"issuer": {"type": "other"}}, "Invoice.issuer.type: 'other' is not of the enum"),
    ],
)
async def test_what_differs_is_noticed(shop: Shop, change: dict[str, Any], said: str) -> None:
    await shop.subscribe()
    await shop.move_to(JANUARY)
    (invoice,) = (await plain(shop, "/v1/invoices"))["data"]
    assert differences(invoice | change, stripe.Invoice) == [said]
