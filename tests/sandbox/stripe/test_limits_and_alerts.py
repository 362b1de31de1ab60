"""Refusals, limits, alerts and expansion of the Stripe stand-in, judged by Stripe's own SDK."""

import asyncio
from typing import Any

import aiohttp
import pytest
import stripe

from gateway.sandbox.server import METER
from tests.support.stand_ins import control
from tests.support.stripe_shop import HOUR, JANUARY, START, Shop


def event_of(customer: str, value: str = "1", **fields: Any) -> Any:
    return {"event_name": METER, "payload": {"stripe_customer_id": customer, "value": value}, **fields}


def code_of(error: stripe.StripeError) -> str | None:
    """The code on the wire; of a 429 the SDK leaves `code` empty."""
    body: Any = error.json_body
    code: str | None = body["error"].get("code")
    return code


@pytest.mark.parametrize(
    "reason", ["global-rate", "global-concurrency", "endpoint-rate", "endpoint-concurrency", "resource-specific"]
)
async def test_a_limit_says_why(shop: Shop, reason: str) -> None:
    await control(shop.sandbox, "stripe", status=429, reason=reason, times=1)
    with pytest.raises(stripe.RateLimitError, match="rate limit exceeded") as caught:
        await shop.client.v1.invoices.list_async()
    assert (caught.value.headers or {})["stripe-rate-limited-reason"] == reason
    assert code_of(caught.value) == "rate_limit"
    await shop.client.v1.invoices.list_async()


async def test_a_429_without_a_reason_is_a_lock(shop: Shop) -> None:
    await control(shop.sandbox, "stripe", status=429, times=1)
    with pytest.raises(stripe.RateLimitError, match="cannot be accessed right now") as caught:
        await shop.client.v1.invoices.list_async()
    assert code_of(caught.value) == "lock_timeout"
    assert "stripe-rate-limited-reason" not in (caught.value.headers or {})
    with pytest.raises(AssertionError, match="error"):
        await control(shop.sandbox, "stripe", status=429, reason="bad-mood")


@pytest.mark.parametrize(("version", "crowded", "status"), [("v1", 429, 429), ("v1", 409, 409), ("v2", 429, 409)])
async def test_one_event_at_a_time(shop: Shop, version: str, crowded: int, status: int) -> None:
    await control(shop.sandbox, "stripe", "/ways", crowded=crowded)
    await control(shop.sandbox, "stripe", delay_s=0.2)
    events: Any = shop.client.v1.billing.meter_events if version == "v1" else shop.client.v2.billing.meter_events
    sent = [events.create_async(event_of("cus_1")) for _ in range(2)]
    (refused,) = [one for one in await asyncio.gather(*sent, return_exceptions=True) if isinstance(one, Exception)]
    assert isinstance(refused, stripe.StripeError)
    assert refused.http_status == status
    assert code_of(refused) == ("too_many_concurrent_requests" if version == "v2" else None)


async def test_v2_has_codes(shop: Shop) -> None:
    send = shop.client.v2.billing.meter_events.create_async
    await send(event_of("cus_1", identifier="once"))
    await shop.client.v1.billing.meters.create_async(
        {"display_name": "Old", "event_name": "old", "default_aggregation": {"formula": "sum"}}
    )
    (old,) = [one for one in shop.sandbox.stripe.meters.values() if one.event_name == "old"]
    await shop.client.v1.billing.meters.deactivate_async(old.id)
    for given, code in (
        (event_of("cus_1", identifier="once"), "duplicate_meter_event"),
        (event_of("cus_1", event_name="old"), "archived_meter"),
        (event_of("cus_1", event_name="never"), "no_meter"),
        (event_of("cus_1", "many"), "payload_invalid_value"),
        (event_of(""), "payload_no_customer_defined"),
    ):
        with pytest.raises(stripe.InvalidRequestError) as caught:
            await send(given)
        body: Any = caught.value.json_body
        assert (caught.value.http_status, body["error"].keys()) == (400, {"code", "message"})
        assert caught.value.code == code


async def test_an_archived_meter_takes_nothing(shop: Shop) -> None:
    subscription = await shop.subscribe()
    await shop.use(subscription.customer, 1_000_000, START)
    await shop.client.v1.billing.meters.deactivate_async(shop.price.recurring.meter)
    with pytest.raises(stripe.InvalidRequestError, match="No active meter found for event name") as caught:
        await shop.use(subscription.customer, 1_000_000, START)
    assert caught.value.http_status == 400
    await control(shop.sandbox, "stripe", "/ways", no_meter_late=True)
    await shop.use(subscription.customer, 1_000_000, START)
    (late,) = (await control(shop.sandbox, "stripe", "/report"))["reported"]
    assert late["related_object"]["id"] == shop.price.recurring.meter
    assert [one["code"] for one in late["data"]["reason"]["error_types"]] == ["archived_meter"]
    await shop.move_to(JANUARY + HOUR)
    assert [one.total for one in await shop.invoices()] == [100]  # what had been counted is billed


async def test_what_a_stream_finds_out_late(shop: Shop) -> None:
    session = await shop.client.v2.billing.meter_event_session.create_async()
    base: Any = {"api": shop.sandbox.stripe_base_url, "meter_events": shop.sandbox.stripe_base_url}
    http = stripe.AIOHTTPClient(timeout=aiohttp.ClientTimeout(total=10))
    client = stripe.StripeClient(session.authentication_token, base_addresses=base, http_client=http)
    batch: Any = {
        "events": [
            event_of("cus_1", "1234567890123456"),
            event_of("cus_1", "x"),
            event_of(""),
            event_of("cus_1", timestamp="2026-10-01T00:00:00.000Z"),
            event_of("cus_1", timestamp="2026-12-01T00:05:01.000Z"),
            event_of("cus_1", event_name="never"),
        ]
    }
    await client.v2.billing.meter_event_stream.create_async(batch)
    await http.close_async()  # type: ignore[no-untyped-call]  # the SDK leaves it unannotated
    seen = (await control(shop.sandbox, "stripe", "/events", method="GET"))["uncounted"]
    assert [one["code"] for one in seen] == [
        "meter_event_value_too_many_digits", "meter_event_invalid_value", "meter_event_no_customer_defined",
        "timestamp_too_far_in_past", "timestamp_in_future", "no_meter",
    ]  # fmt: skip


async def test_alerts(shop: Shop) -> None:
    alerts = shop.client.v1.billing.alerts
    one, two = [(await shop.client.v1.customers.create_async({})).id for _ in range(2)]
    await shop.use(one, 60, START)
    threshold: Any = {"gte": 100, "meter": shop.price.recurring.meter, "recurrence": "one_time"}
    wanted: Any = {"alert_type": "usage_threshold", "title": "a hundred", "usage_threshold": threshold}
    everybody = await alerts.create_async(wanted)
    own: Any = wanted | {"usage_threshold": threshold | {"filters": [{"type": "customer", "customer": two}]}}
    only_two = await alerts.create_async(own)
    await shop.use(one, 39, START)
    await shop.use(one, 1, START)
    await shop.use(one, 100, START)
    await alerts.deactivate_async(everybody.id)
    await shop.use(two, 100, START)
    told = (await shop.client.v1.events.list_async({"type": "billing.alert.triggered"})).data
    seen = [(event.data.object["alert"]["id"], event.data.object["customer"]) for event in told]
    assert seen == [(only_two.id, two), (everybody.id, one)]
    assert told[1].data.object["value"] == 100
    assert (await alerts.archive_async(everybody.id)).status == "archived"
    assert [alert.id for alert in (await alerts.list_async()).data] == [only_two.id]
    with pytest.raises(stripe.InvalidRequestError, match="archived already"):
        await alerts.activate_async(everybody.id)


async def test_answers_are_expanded(shop: Shop) -> None:
    subscription = await shop.subscribe()
    await shop.move_to(JANUARY)
    paths: Any = {"expand": ["latest_invoice.customer", "items.data.price.product", "default_payment_method"]}
    found = await shop.client.v1.subscriptions.retrieve_async(subscription.id, paths)
    assert isinstance(found.latest_invoice, stripe.Invoice)
    assert isinstance(found.latest_invoice.customer, stripe.Customer)
    assert found["items"].data[0].price.product.name == "OpenAI usage"
    plain = await shop.client.v1.subscriptions.retrieve_async(subscription.id)
    assert isinstance(plain.latest_invoice, str)
    listed = await shop.client.v1.invoices.list_async({"expand": ["data.customer"]})
    assert isinstance(listed.data[0].customer, stripe.Customer)
    for wrong in ("nothing", "status", "a.b.c.d.e"):
        with pytest.raises(stripe.InvalidRequestError, match="cannot be expanded"):
            await shop.client.v1.subscriptions.retrieve_async(subscription.id, {"expand": [wrong]})


async def test_an_invoice_may_wait_for_its_webhook(shop: Shop) -> None:
    await control(shop.sandbox, "stripe", "/ways", waits_for_webhooks=True)
    endpoint = {"url": "http://127.0.0.1:9/webhooks", "secret": "whsec_1", "payload": "snapshot"}
    await control(shop.sandbox, "stripe", "/endpoints", **endpoint)
    told, untold = await shop.subscribe(), await shop.subscribe()
    await shop.move_to(JANUARY + 5 * HOUR)
    assert [one.status for one in await shop.invoices()] == ["draft", "draft"]
    waiting = (await control(shop.sandbox, "stripe", "/deliveries", method="GET"))["pending"]
    (first,) = [
        one["event"]
        for one in waiting
        if one["type"] == "invoice.created"
        and shop.sandbox.stripe.account.kinds["event"][one["event"]]["data"]["object"]["customer"] == told.customer
    ]
    await control(shop.sandbox, "stripe", "/deliveries", events=[first], drop=True)
    await shop.move_to(JANUARY + 6 * HOUR)
    assert [one.status for one in await shop.invoices(customer=told.customer)] == ["paid"]
    await shop.move_to(JANUARY + 72 * HOUR - 1)
    assert [one.status for one in await shop.invoices(customer=untold.customer)] == ["draft"]
    await shop.move_to(JANUARY + 72 * HOUR)
    assert [one.status for one in await shop.invoices(customer=untold.customer)] == ["paid"]
