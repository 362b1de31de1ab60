"""Webhook endpoints and event destinations of the Stripe stand-in, made and read by Stripe's SDK."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import stripe
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.support.stand_ins import control
from tests.support.stripe_shop import Shop, open_shop
from tests.support.stripe_types import differences

REPORT = "v1.billing.meter.error_report_triggered"
GIVEN: Any = {
    "name": "one", "type": "webhook_endpoint", "event_payload": "thin", "enabled_events": [REPORT],
    "include": ["webhook_endpoint.signing_secret", "webhook_endpoint.url"],
}  # fmt: skip


class Receiver:
    """Where webhooks arrive: bodies with their signatures."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.got: asyncio.Queue[tuple[bytes, str]] = asyncio.Queue()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async def hear(request: web.Request) -> web.Response:
        await made.got.put((await request.read(), request.headers["Stripe-Signature"]))
        return web.Response()

    app = web.Application()
    app.router.add_post("/webhooks/stripe", hear)
    async with TestServer(app) as server:
        made = Receiver(str(server.make_url("/webhooks/stripe")))
        yield made


async def test_an_endpoint_is_told_by_itself_and_signs_with_its_secret(shop: Shop, receiver: Receiver) -> None:
    endpoints = shop.client.v1.webhook_endpoints
    made = await endpoints.create_async({"url": receiver.url, "enabled_events": ["customer.created"]})
    assert made.secret is not None
    assert differences(made.to_dict(), stripe.WebhookEndpoint) == []
    await shop.client.v1.customers.create_async({"email": "a@example.com"})
    body, header = await asyncio.wait_for(receiver.got.get(), 30)
    assert shop.client.construct_event(body, header, made.secret).type == "customer.created"
    (listed,) = (await endpoints.list_async()).data
    assert (listed.url, getattr(listed, "secret", None)) == (receiver.url, None)
    stopped = await endpoints.update_async(made.id, {"disabled": True})
    assert stopped.status == "disabled"
    await shop.client.v1.customers.create_async({})
    await endpoints.update_async(made.id, {"disabled": False, "enabled_events": ["customer.deleted"]})
    await shop.client.v1.customers.create_async({})
    await endpoints.delete_async(made.id)
    assert (await endpoints.list_async()).data == []
    assert shop.sandbox.stripe.webhooks.pending == []
    assert receiver.got.empty()


async def test_an_endpoint_outlives_a_restart(receiver: Receiver, tmp_path: Path) -> None:
    file = tmp_path / "stripe.json"
    async with open_shop(file) as shop:
        given: Any = {"url": receiver.url, "enabled_events": ["customer.created"]}
        secret = (await shop.client.v1.webhook_endpoints.create_async(given)).secret
    assert secret is not None
    async with open_shop(file) as shop:
        await shop.client.v1.customers.create_async({"email": "a@example.com"})
        body, header = await asyncio.wait_for(receiver.got.get(), 30)
        assert shop.client.construct_event(body, header, secret).type == "customer.created"


async def test_a_destination_of_thin_events(shop: Shop, receiver: Receiver) -> None:
    destinations = shop.client.v2.core.event_destinations
    made = await destinations.create_async(GIVEN | {"webhook_endpoint": {"url": receiver.url}})
    assert differences(json.loads(str(made)), stripe.v2.core.EventDestination) == []
    assert made.webhook_endpoint is not None
    secret = made.webhook_endpoint.signing_secret
    assert secret is not None
    await shop.use("cus_unknown", 1, shop.sandbox.stripe.now(), "lost")
    await control(shop.sandbox, "stripe", "/report")
    body, header = await asyncio.wait_for(receiver.got.get(), 30)
    assert shop.client.parse_event_notification(body, header, secret).type == REPORT
    listed = (await destinations.list_async({"include": ["webhook_endpoint.url"]})).data
    assert [(one.webhook_endpoint.url, one.webhook_endpoint.signing_secret) for one in listed if one.webhook_endpoint] \
        == [(receiver.url, None)]  # fmt: skip
    hidden = await destinations.retrieve_async(made.id)
    assert hidden.webhook_endpoint is not None
    assert hidden.webhook_endpoint.url is None
    assert (await destinations.disable_async(made.id)).status == "disabled"
    assert (await destinations.enable_async(made.id)).status == "enabled"
    changed = await destinations.update_async(made.id, {"enabled_events": [REPORT, "v1.billing.meter.no_meter_found"]})
    assert len(changed.enabled_events) == 2
    await destinations.delete_async(made.id)
    assert (await destinations.list_async()).data == []


async def test_a_long_list_of_v2_has_pages_that_keep_the_question(shop: Shop) -> None:
    destinations = shop.client.v2.core.event_destinations
    for number in range(5):
        await destinations.create_async(GIVEN | {"webhook_endpoint": {"url": f"https://example.com/{number}"}})
    page = await destinations.list_async({"limit": 2, "include": ["webhook_endpoint.url"]})
    assert len(page.data) == 2
    found = [one.webhook_endpoint.url async for one in page.auto_paging_iter() if one.webhook_endpoint is not None]
    assert sorted(str(url) for url in found) == [f"https://example.com/{number}" for number in range(5)]
    assert shop.sandbox.stripe.webhooks.endpoints == []  # nothing goes beyond this machine


@pytest.mark.parametrize(
    "given",
    [
        {"enabled_events": ["invoice.paid"]},
        {"enabled_events": ["v1.billing.*"]},
        {"event_payload": "snapshot"},
        {"enabled_events": []},
        {"webhook_endpoint": {"url": "example.com/x"}},
        {"snapshot_api_version": stripe.api_version},
    ],
)
async def test_what_stripe_would_refuse(shop: Shop, given: Any) -> None:
    wanted = GIVEN | {"webhook_endpoint": {"url": "https://example.com/x"}} | given
    with pytest.raises(stripe.InvalidRequestError):
        await shop.client.v2.core.event_destinations.create_async(wanted)
    thin: Any = {"url": "https://example.com/x", "enabled_events": [REPORT]}
    with pytest.raises(stripe.InvalidRequestError):  # no endpoint of v1 has thin events
        await shop.client.v1.webhook_endpoints.create_async(thin)
