"""What the Stripe stand-in says late, kept or in other words than Stripe's, judged by Stripe's own SDK.

`tests/support/stripe_samples.py` has the bodies that vendor pages, SDK tests and productions show.
"""

import json
from collections.abc import AsyncIterator
from typing import Any, Final

import aiohttp
import pytest
import stripe
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.sandbox import credentials
from gateway.sandbox.server import METER, Sandbox
from tests.support import stripe_samples
from tests.support.patience import ENDS_S
from tests.support.stand_ins import Clock, control, sandbox_at
from tests.support.stripe_samples import outline

NOW: Final = 1_795_392_000  # a full hour, UTC
SECRET: Final = "whsec_sandbox"
HOOK_PATH: Final = "/webhooks/stripe"


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


@pytest.fixture
async def sandbox(clock: Clock) -> AsyncIterator[Sandbox]:
    async with sandbox_at(clock) as running:
        yield running


@pytest.fixture
async def client(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[stripe.StripeClient]:
    monkeypatch.setattr(stripe, "enable_telemetry", False)
    http = stripe.AIOHTTPClient(timeout=aiohttp.ClientTimeout(total=ENDS_S))
    base = {"api": sandbox.stripe_base_url, "meter_events": sandbox.stripe_base_url}
    yield stripe.StripeClient(credentials.STRIPE_SECRET_KEY, base_addresses=base, http_client=http)  # type: ignore[arg-type]
    await http.close_async()  # type: ignore[no-untyped-call]  # the SDK leaves it unannotated


async def send(client: stripe.StripeClient, customer: str, identifier: str, **fields: Any) -> Any:
    payload = {"stripe_customer_id": customer, "value": "7"}
    given: Any = {"event_name": METER, "identifier": identifier, "payload": payload, "timestamp": NOW - 60, **fields}
    return await client.v1.billing.meter_events.create_async(given)


async def summed(client: stripe.StripeClient, sandbox: Sandbox, customer: str) -> list[float]:
    meter = next(iter(sandbox.stripe.meters))
    span: Any = {"customer": customer, "start_time": NOW - 3600, "end_time": NOW}
    return [
        one.aggregated_value for one in (await client.v1.billing.meters.event_summaries.list_async(meter, span)).data
    ]


async def plain(client: stripe.StripeClient, path: str) -> Any:
    """The JSON as it is on the wire."""
    return json.loads((await client.raw_request_async("get", path)).body)


async def test_events_of_customers_that_stripe_does_not_have_are_received_and_never_counted(
    client: stripe.StripeClient, sandbox: Sandbox
) -> None:
    known = await client.v1.customers.create_async({})
    gone = await client.v1.customers.create_async({})
    assert (await client.v1.customers.delete_async(gone.id)).deleted
    assert (await client.v1.customers.retrieve_async(gone.id)).deleted
    await control(sandbox, "stripe", "/customers", id="cus_live", livemode=True)
    with pytest.raises(stripe.InvalidRequestError, match="similar object exists in live mode, but a test mode key"):
        await client.v1.customers.retrieve_async("cus_live")
    for customer in (known.id, gone.id, "cus_live", "cus_never"):
        said = await send(client, customer, f"w:{customer}")
        assert (said.object, said.payload["stripe_customer_id"]) == ("billing.meter_event", customer)
        counted = await summed(client, sandbox, customer)
        assert counted == ([7.0] if customer == known.id else [])
        with pytest.raises(stripe.InvalidRequestError, match="An event already exists"):
            await send(client, customer, f"w:{customer}")  # the identifier is used up, counted or not
    seen = await control(sandbox, "stripe", "/events", method="GET")
    assert [one["customer"] for one in seen["events"]] == [known.id]
    assert {one["code"] for one in seen["uncounted"]} == {"meter_event_customer_not_found"}


async def test_they_are_reported_when_their_ten_seconds_are_over(
    client: stripe.StripeClient, sandbox: Sandbox, clock: Clock
) -> None:
    clock.now += 4
    for number in range(7):
        await send(client, "cus_never", f"w:{number}")
    clock.now += 7
    types: Any = {"types": ["v1.billing.meter.error_report_triggered"]}
    assert (await client.v2.core.events.list_async(types)).data == []
    clock.now += 1
    (event,) = (await client.v2.core.events.list_async(types)).data
    got = await client.v2.core.events.retrieve_async(event.id)
    assert isinstance(got, stripe.events.V1BillingMeterErrorReportTriggeredEvent)
    assert (got.data.validation_start, got.data.validation_end) == (
        "2026-11-23T00:00:00.000Z", "2026-11-23T00:00:10.000Z",
    )  # fmt: skip
    (kind,) = got.data.reason.error_types
    assert (kind.code, kind.error_count, len(kind.sample_errors)) == ("meter_event_customer_not_found", 7, 5)
    assert kind.sample_errors[0].request.identifier == "w:0"
    assert got.data.developer_message_summary == "There are 7 invalid events"
    meter = next(iter(sandbox.stripe.meters))
    for query, found in (
        ({"object_id": meter}, 1),
        ({"object_id": "mtr_other"}, 0),
        ({"types": ["v1.billing.meter.no_meter_found"]}, 0),
        ({"created": {"gte": "2026-11-23T00:00:13.000Z"}}, 0),
    ):
        assert len((await client.v2.core.events.list_async(query)).data) == found  # type: ignore[arg-type]
    clock.now += 31 * 86_400
    assert (await client.v2.core.events.list_async()).data == []


async def test_an_endpoint_is_told_and_fetches_the_rest(client: stripe.StripeClient, sandbox: Sandbox) -> None:
    told: list[tuple[bytes, str]] = []

    async def hear(request: web.Request) -> web.Response:
        told.append((await request.read(), request.headers["Stripe-Signature"]))
        return web.Response()

    app = web.Application()
    app.router.add_post(HOOK_PATH, hear)
    async with TestServer(app) as server:
        await control(sandbox, "stripe", "/endpoints", url=str(server.make_url(HOOK_PATH)), secret=SECRET)
        await send(client, "cus_never", "w:1")
        await control(sandbox, "stripe", "/ways", no_meter_late=True)
        await send(client, "cus_never", "w:2", event_name="nowhere")
        done = await control(sandbox, "stripe", "/report")
    assert done["told"] == [200, 200]
    # The time of the stand-in is not the SDK's: no tolerance.
    seen = [client.parse_event_notification(body, header, SECRET, tolerance=10**9) for body, header in told]
    assert isinstance(seen[0], stripe.events.V1BillingMeterErrorReportTriggeredEventNotification)
    assert isinstance(seen[1], stripe.events.V1BillingMeterNoMeterFoundEventNotification)
    report = await seen[0].fetch_event_async()
    assert report.data.reason.error_types[0].sample_errors[0].request.identifier == "w:1"
    assert (await seen[0].fetch_related_object_async()).event_name == METER
    missing = await seen[1].fetch_event_async()
    assert missing.data.reason.error_types[0].code == "no_meter"
    assert outline(json.loads(told[0][0])) == outline(stripe_samples.NOTIFICATION)
    for event_id, sample in ((report.id, stripe_samples.ERROR_REPORT), (missing.id, stripe_samples.NO_METER)):
        assert outline(await plain(client, f"/v2/core/events/{event_id}")) == outline(sample)


async def test_bodies_are_those_of_the_samples(client: stripe.StripeClient, sandbox: Sandbox) -> None:
    customer = await client.v1.customers.create_async({})
    said = await send(client, customer.id, "once")
    assert outline(json.loads(said.last_response.body)) == outline(stripe_samples.METER_EVENT)
    with pytest.raises(stripe.InvalidRequestError) as again:
        await send(client, customer.id, "once")
    assert again.value.json_body == stripe_samples.duplicate("once")
    assert (again.value.http_status, (again.value.headers or {})["stripe-should-retry"]) == (400, "false")
    with pytest.raises(stripe.InvalidRequestError) as late:
        await send(client, customer.id, "late", timestamp=NOW - 36 * 86_400)
    assert (late.value.http_status, late.value.json_body) == (400, stripe_samples.too_old(NOW - 35 * 86_400))
    meter = next(iter(sandbox.stripe.meters))
    query = f"customer={customer.id}&start_time={NOW - 7200}&end_time={NOW}&value_grouping_window=hour"
    listed = await plain(client, f"/v1/billing/meters/{meter}/event_summaries?{query}")
    sample = stripe_samples.SUMMARIES
    assert outline(listed["data"][0]) == outline(sample["data"][0])
    assert sample.keys() <= listed.keys()


@pytest.mark.parametrize("status", [400, 404])
async def test_summaries_of_a_customer_that_stripe_does_not_have_may_be_refused(
    client: stripe.StripeClient, sandbox: Sandbox, status: int
) -> None:
    assert await summed(client, sandbox, "cus_never") == []
    await control(sandbox, "stripe", "/ways", summaries_of_unknown=status)
    with pytest.raises(stripe.InvalidRequestError, match="No such customer: 'cus_never'") as caught:
        await summed(client, sandbox, "cus_never")
    assert caught.value.http_status == status


@pytest.mark.parametrize(
    ("trouble", "status"),
    [
        ({"body": ""}, 200),
        ({"body": "", "status": 204}, 204),
        ({"body": "<html>maintenance</html>", "headers": {"Retry-After": "7"}}, 200),
        ({"status": 408}, 408),
        ({"status": 424}, 424),
    ],
)
@pytest.mark.parametrize("accept", [False, True])
async def test_answers_that_are_not_stripes(
    client: stripe.StripeClient, sandbox: Sandbox, trouble: dict[str, Any], status: int, accept: bool
) -> None:
    await control(sandbox, "stripe", "/customers", id="cus_1")
    await control(sandbox, "stripe", times=1, accept=accept, **trouble)
    with pytest.raises(stripe.StripeError) as caught:
        await send(client, "cus_1", "w:1")
    assert caught.value.http_status == status
    assert len(sandbox.stripe.events) == accept


async def test_what_ran_is_kept_for_its_key_errors_too(client: stripe.StripeClient, sandbox: Sandbox) -> None:
    options: Any = {"idempotency_key": "k"}
    given: Any = {"event_name": "nowhere", "payload": {"stripe_customer_id": "cus_1", "value": "1"}}
    for replayed in (None, "true"):
        with pytest.raises(stripe.InvalidRequestError, match="No active meter") as caught:
            await client.v1.billing.meter_events.create_async(given, options)
        assert (caught.value.headers or {}).get("idempotent-replayed") == replayed
        sandbox.stripe.add_meter("nowhere")
    unread: Any = {"payload": {"stripe_customer_id": "cus_1", "value": "1"}}
    for _ in range(2):
        with pytest.raises(stripe.InvalidRequestError, match="Missing required param") as caught:
            await client.v1.billing.meter_events.create_async(unread, {"idempotency_key": "l"})
        assert "idempotent-replayed" not in (caught.value.headers or {})


async def test_a_meters_event_name_has_a_hundred_characters(client: stripe.StripeClient) -> None:
    wanted: Any = {"display_name": "d" * 250, "default_aggregation": {"formula": "sum"}}
    await client.v1.billing.meters.create_async(wanted | {"event_name": "n" * 100})
    with pytest.raises(stripe.InvalidRequestError, match="event_name"):
        await client.v1.billing.meters.create_async(wanted | {"event_name": "n" * 101})
