"""Webhooks of the Stripe stand-in, judged by its SDK: what is told and how it is signed, late, twice, disordered."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
import stripe
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.support.stand_ins import control
from tests.support.stripe_shop import HOUR, JANUARY, START, Shop

SECRET: Final = "whsec_sandbox"


class Receiver:
    """Where webhooks arrive."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: list[int] = []
        """Statuses of the next answers; then 200."""
        self.got: list[tuple[bytes, str]] = []

    def types(self) -> list[str]:
        return [json.loads(body)["type"] for body, _ in self.got]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async def hear(request: web.Request) -> web.Response:
        made.got.append((await request.read(), request.headers["Stripe-Signature"]))
        return web.Response(status=made.answers.pop(0) if made.answers else 200)

    app = web.Application()
    app.router.add_post("/webhooks/stripe", hear)
    async with TestServer(app) as server:
        made = Receiver(str(server.make_url("/webhooks/stripe")))
        yield made


async def listen(shop: Shop, receiver: Receiver, **fields: Any) -> None:
    fields = {"url": receiver.url, "secret": SECRET, "payload": "snapshot"} | fields
    await control(shop.sandbox, "stripe", "/endpoints", **fields)


async def deliver(shop: Shop, **order: Any) -> dict[str, Any]:
    return await control(shop.sandbox, "stripe", "/deliveries", **order)


async def test_the_life_of_an_invoice_is_told(shop: Shop, receiver: Receiver) -> None:
    await listen(shop, receiver)
    subscription = await shop.subscribe()
    await shop.use(subscription.customer, 1_000_000, START)
    await shop.move_to(JANUARY + HOUR)
    assert receiver.got == []  # nothing before it is asked for
    assert (await deliver(shop))["pending"] == 0
    assert receiver.types() == [
        "customer.created", "customer.subscription.created", "customer.subscription.updated", "invoice.created",
        "invoice.finalized", "invoice.paid", "invoice.payment_succeeded",
    ]  # fmt: skip
    events = [shop.client.construct_event(body, header, SECRET) for body, header in receiver.got]
    created, finalized = events[3], events[4]
    assert (created.created, created.data.object["status"], created.data.object["total"]) == (JANUARY, "draft", 100)
    assert (finalized.created, finalized.data.object["status"]) == (JANUARY + HOUR, "open")
    assert created.request is not None
    assert created.request.id is None
    by_hand = events[1].request
    assert by_hand is not None
    assert by_hand.idempotency_key is not None
    renewed = events[2].data.previous_attributes
    assert renewed is not None
    assert renewed["items"]["data"][0]["current_period_end"] == JANUARY
    fetched = await shop.client.v1.events.retrieve_async(created.id)
    assert (fetched.type, fetched.pending_webhooks, fetched.data.object["id"]) == (
        "invoice.created", 0, created.data.object["id"],
    )  # fmt: skip
    assert fetched.api_version == "2026-10-28.endive"


async def test_events_are_listed_for_thirty_days(shop: Shop) -> None:
    await shop.subscribe()
    await shop.move_to(JANUARY)
    listed = shop.client.v1.events.list_async
    page = await listed({"limit": 2, "types": ["invoice.created", "customer.subscription.created"]})
    assert [one.type async for one in page.auto_paging_iter()] == ["invoice.created"]  # the other is 31 days old
    assert (await listed({"type": "invoice.created", "created": {"gt": JANUARY}})).data == []


async def test_an_endpoint_is_told_of_what_it_wants(shop: Shop, receiver: Receiver) -> None:
    await listen(shop, receiver, events=["invoice.paid", "credit_note.created", "billing.credit_grant.created"])
    subscription = await shop.subscribe()
    grant: Any = {
        "customer": subscription.customer,
        "amount": {"type": "monetary", "monetary": {"currency": "usd", "value": 1}},
        "applicability_config": {"scope": {"price_type": "metered"}},
    }
    await shop.client.v1.billing.credit_grants.create_async(grant)
    await shop.use(subscription.customer, 1_000_000, START)
    await shop.move_to(JANUARY + HOUR)
    (invoice,) = await shop.invoices()
    note: Any = {"invoice": invoice.id, "amount": 10, "credit_amount": 10}
    await shop.client.v1.credit_notes.create_async(note)
    await deliver(shop)
    assert receiver.types() == ["billing.credit_grant.created", "invoice.paid", "credit_note.created"]


async def test_a_failed_delivery_waits_and_is_signed_anew(shop: Shop, receiver: Receiver) -> None:
    await listen(shop, receiver, events=["customer.created"])
    await shop.client.v1.customers.create_async({})
    receiver.answers = [500, 302]
    old = await deliver(shop, signed_at=1_700_000_000)
    assert ([one["status"] for one in old["told"]], old["pending"]) == ([500], 1)
    assert [one["status"] for one in (await deliver(shop))["told"]] == [302]
    assert [one["status"] for one in (await deliver(shop))["told"]] == [200]
    assert (await deliver(shop))["told"] == []
    (body, late), *_, (again, fresh) = receiver.got
    assert body == again
    with pytest.raises(stripe.SignatureVerificationError, match="tolerance"):
        stripe.Webhook.construct_event(body, late, SECRET)
    assert stripe.Webhook.construct_event(again, fresh, SECRET).type == "customer.created"
    shown = await control(shop.sandbox, "stripe", "/deliveries", method="GET")
    assert [one["statuses"] for one in shown["done"]] == [[500, 302, 200]]


async def test_duplicates_disorder_and_loss(shop: Shop, receiver: Receiver) -> None:
    await listen(shop, receiver, events=["customer.created", "customer.updated"])
    customer = await shop.client.v1.customers.create_async({})
    await shop.client.v1.customers.update_async(customer.id, {"name": "A"})
    await deliver(shop, order="reversed", duplicates=1)
    assert receiver.types() == ["customer.updated"] * 2 + ["customer.created"] * 2
    events = [json.loads(body)["id"] for body, _ in receiver.got]
    await deliver(shop, events=[events[2], events[0]])
    assert receiver.types()[4:] == ["customer.created", "customer.updated"]
    await shop.client.v1.customers.update_async(customer.id, {"name": "B"})
    assert (await deliver(shop, drop=True))["pending"] == 0
    assert len(receiver.got) == 6


async def test_a_secret_that_is_rolled(shop: Shop, receiver: Receiver) -> None:
    await listen(shop, receiver, also_signed_by=["whsec_old"])
    await shop.client.v1.customers.create_async({})
    await deliver(shop)
    ((body, header),) = receiver.got
    assert header.count("v1=") == 2
    for secret in (SECRET, "whsec_old"):
        assert stripe.Webhook.construct_event(body, header, secret)
    await shop.client.v1.customers.create_async({})
    await deliver(shop, signed_by="whsec_other")
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(*receiver.got[1], SECRET)


async def test_one_that_is_told_by_itself(shop: Shop, receiver: Receiver) -> None:
    receiver.answers = [503]
    await listen(shop, receiver, auto=True, retry_s=0.05, events=["customer.created"])
    await listen(shop, receiver, auto=True, retry_s=0.05, payload="thin")
    await shop.client.v1.customers.create_async({})
    await shop.use("cus_never", 1, START)
    await shop.move_to(START + 12)
    async with asyncio.timeout(20):
        while len(receiver.got) < 3:
            await asyncio.sleep(0.05)
    assert sorted(receiver.types()) == [
        "customer.created", "customer.created", "v1.billing.meter.error_report_triggered",
    ]  # fmt: skip


async def test_no_other_host_is_told(shop: Shop) -> None:
    with pytest.raises(AssertionError, match="loopback only"):
        await control(shop.sandbox, "stripe", "/endpoints", url="https://example.com/a", secret=SECRET)
    with pytest.raises(AssertionError, match="error"):
        await deliver(shop, order="sideways")


async def test_meters_are_told_of(shop: Shop, receiver: Receiver) -> None:
    await listen(shop, receiver)
    meter = shop.price.recurring.meter
    await shop.client.v1.billing.meters.update_async(meter, {"display_name": "New"})
    await shop.client.v1.billing.meters.deactivate_async(meter)
    await shop.client.v1.billing.meters.reactivate_async(meter)
    await deliver(shop)
    assert receiver.types() == ["billing.meter.updated", "billing.meter.deactivated", "billing.meter.reactivated"]
