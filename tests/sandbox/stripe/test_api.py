"""The Stripe stand-in, judged by Stripe's own SDK: meters, events, idempotency, summaries, the stream, refusals."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import aiohttp
import pytest
import stripe
from hypothesis import given
from hypothesis import strategies as st

from gateway.sandbox import credentials
from gateway.sandbox.server import METER, Sandbox
from gateway.sandbox.stripe.form import read_form
from tests.support.patience import ENDS_S
from tests.support.stand_ins import Clock, control, sandbox_at

HOUR: Final = 3600
NOW: Final = 1_795_392_000  # a full hour, UTC
WHO: Final = "cus_1"


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


@pytest.fixture
async def sandbox(clock: Clock) -> AsyncIterator[Sandbox]:
    async with sandbox_at(clock) as running:
        for customer in (WHO, "cus_2"):
            running.stripe.customers.add(NOW, {}, customer_id=customer)
        yield running


@pytest.fixture(autouse=True)
def no_telemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stripe, "enable_telemetry", False)


def connect(sandbox: Sandbox, key: str, http: stripe.AIOHTTPClient) -> stripe.StripeClient:
    base = sandbox.stripe_base_url
    return stripe.StripeClient(key, base_addresses={"api": base, "meter_events": base}, http_client=http)


@pytest.fixture
async def http() -> AsyncIterator[stripe.AIOHTTPClient]:
    made = stripe.AIOHTTPClient(timeout=aiohttp.ClientTimeout(total=ENDS_S))
    yield made
    await made.close_async()  # type: ignore[no-untyped-call]  # the SDK leaves it unannotated


@pytest.fixture
def client(sandbox: Sandbox, http: stripe.AIOHTTPClient) -> stripe.StripeClient:
    return connect(sandbox, credentials.STRIPE_SECRET_KEY, http)


def event(value: str = "25", identifier: str | None = None, **fields: Any) -> Any:
    made = {"event_name": METER, "payload": {"stripe_customer_id": WHO, "value": value}, **fields}
    return made if identifier is None else made | {"identifier": identifier}


async def send(client: stripe.StripeClient, given: Any, key: str | None = None) -> Any:
    options: Any = {} if key is None else {"idempotency_key": key}
    return await client.v1.billing.meter_events.create_async(given, options)


async def accepted(sandbox: Sandbox) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = (await control(sandbox, "stripe", "/events", method="GET"))["events"]
    return events


async def test_a_key_is_a_bearer_token_or_a_user_name(sandbox: Sandbox) -> None:
    """As in Stripe's documentation of its API: `curl -u sk_test_…:`."""
    url = f"{sandbox.stripe_base_url}/v1/customers"
    for user, status in ((credentials.STRIPE_SECRET_KEY, 200), ("sk_test_wrong", 401)):
        headers = {"Authorization": aiohttp.encode_basic_auth(user, "")}
        async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
            assert answer.status == status


async def test_customers(client: stripe.StripeClient) -> None:
    made = await client.v1.customers.create_async({"email": "a@example.com", "metadata": {"user_id": "u1"}})
    got = await client.v1.customers.retrieve_async(made.id)
    assert (got.email, got.metadata and got.metadata["user_id"], got.livemode) == ("a@example.com", "u1", False)
    other = await client.v1.customers.create_async({"email": "b@example.com"})
    for email, wanted in (("a@example.com", [made.id]), ("A@example.com", [])):
        assert [one.id for one in (await client.v1.customers.list_async({"email": email})).data] == wanted
    page = await client.v1.customers.list_async({"limit": 1})
    assert [one.id async for one in page.auto_paging_iter()] == [other.id, made.id, "cus_2", WHO]
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await client.v1.customers.retrieve_async("cus_none")
    assert (caught.value.http_status, caught.value.code) == (404, "resource_missing")


async def test_meters(client: stripe.StripeClient) -> None:
    wanted: Any = {"display_name": "Tokens", "event_name": "tokens", "default_aggregation": {"formula": "last"}}
    made = await client.v1.billing.meters.create_async(wanted | {"event_time_window": "hour"})
    assert (made.status, made.event_time_window, made.value_settings.event_payload_key) == ("active", "hour", "value")
    with pytest.raises(stripe.InvalidRequestError):
        await client.v1.billing.meters.create_async(wanted)
    renamed = await client.v1.billing.meters.update_async(made.id, {"display_name": "New"})
    assert (renamed.display_name, (await client.v1.billing.meters.retrieve_async(made.id)).display_name) == ("New",) * 2
    page = await client.v1.billing.meters.list_async({"status": "active", "limit": 1})
    names = [meter.event_name async for meter in page.auto_paging_iter()]
    assert sorted(names) == [METER, "tokens"]
    off = await client.v1.billing.meters.deactivate_async(made.id)
    assert (off.status, off.status_transitions.deactivated_at) == ("inactive", NOW)
    assert (await client.v1.billing.meters.reactivate_async(made.id)).status == "active"


async def test_an_event(client: stripe.StripeClient, sandbox: Sandbox) -> None:
    said = await send(client, event("80", "w:1", timestamp=NOW - 1))
    assert (said.object, said.identifier, said.timestamp, said.payload["value"]) == (
        "billing.meter_event", "w:1", NOW - 1, "80",
    )  # fmt: skip
    (kept,) = await accepted(sandbox)
    assert (kept["customer"], kept["value"], kept["identifier"], kept["created"]) == (WHO, "80", "w:1", NOW)


async def test_an_identifier_counts_once_in_a_day(client: stripe.StripeClient, sandbox: Sandbox, clock: Clock) -> None:
    await send(client, event("1", "once"))
    clock.now += 24 * HOUR - 1
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await send(client, event("2", "once"))
    error = caught.value
    assert (error.http_status, error.user_message) == (400, "An event already exists with identifier once.")
    assert error.code is None
    assert (error.headers or {})["stripe-should-retry"] == "false"
    clock.now += 1
    await send(client, event("3", "once"))
    assert [kept["value"] for kept in await accepted(sandbox)] == ["1", "3"]


async def test_idempotency_keys(client: stripe.StripeClient, sandbox: Sandbox) -> None:
    first = await send(client, event("1", "a"), "key-1")
    again = await send(client, event("1", "a"), "key-1")
    assert first.to_dict() == again.to_dict()
    assert len(await accepted(sandbox)) == 1
    with pytest.raises(stripe.IdempotencyError) as caught:
        await send(client, event("2", "a"), "key-1")
    assert caught.value.http_status == 400
    await control(sandbox, "stripe", status=500, accept=True, times=1)
    for replayed in (None, "true"):
        with pytest.raises(stripe.APIError) as failed:
            await send(client, event("3", "b"), "key-2")
        assert (failed.value.headers or {}).get("idempotent-replayed") == replayed
    assert [kept["value"] for kept in await accepted(sandbox)] == ["1", "3"]
    with pytest.raises(stripe.InvalidRequestError):
        await send(client, event("x", "c"), "key-3")
    await send(client, event("4", "c"), "key-4")  # what was refused before it ran did not use up the identifier


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (event(event_name="nowhere"), 'No active meter found for event name "nowhere"'),
        (event("1234567890123456"), "15 significant digits"),
        (event("1e3"), "decimal number"),
        (event("one"), "decimal number"),
        (event(timestamp=NOW + 301), "5 minutes"),
        (event(timestamp=NOW - 35 * 24 * HOUR - 1), "35 days"),
        (event(identifier="i" * 101), "1 to 100 characters"),
        (event(payload={"value": "1"}), "stripe_customer_id"),
        (event(payload={"stripe_customer_id": WHO}), "value"),
    ],
)
async def test_an_event_that_is_refused(
    client: stripe.StripeClient, sandbox: Sandbox, given: dict[str, Any], why: str
) -> None:
    with pytest.raises(stripe.InvalidRequestError, match=why):
        await send(client, given)
    assert await accepted(sandbox) == []


@pytest.mark.parametrize("value", ["123456789012345", "0.00000123456789", "-5", "0"])
async def test_values_that_fit(client: stripe.StripeClient, sandbox: Sandbox, value: str) -> None:
    await send(client, event(value))
    assert [kept["value"] for kept in await accepted(sandbox)] == [value]


async def test_one_call_at_a_time_per_customer_and_meter(client: stripe.StripeClient, sandbox: Sandbox) -> None:
    await control(sandbox, "stripe", delay_s=0.2)
    other = {"stripe_customer_id": "cus_2", "value": "1"}
    results = await asyncio.gather(
        send(client, event()), send(client, event()), send(client, event(payload=other)), return_exceptions=True
    )
    refused = [result for result in results if isinstance(result, stripe.RateLimitError)]
    assert len(refused) == 1
    assert (refused[0].headers or {})["stripe-rate-limited-reason"] == "endpoint-concurrency"
    assert len(await accepted(sandbox)) == 2
    assert (await control(sandbox, "stripe", "/calls", method="GET"))["crowded"] == 1


async def test_summaries(client: stripe.StripeClient, sandbox: Sandbox) -> None:
    for value, at in (("1.5", NOW - 1), ("2", NOW - HOUR), ("4", NOW - HOUR - 1), ("100", NOW)):
        await send(client, event(value, timestamp=at))
    meter_id = next(iter(sandbox.stripe.meters))
    spans: Any = {"customer": WHO, "start_time": NOW - 2 * HOUR, "end_time": NOW}
    read = client.v1.billing.meters.event_summaries.list_async
    assert [found.aggregated_value for found in (await read(meter_id, spans)).data] == [7.5]
    hours = (await read(meter_id, spans | {"value_grouping_window": "hour"})).data
    assert [(found.start_time, found.aggregated_value) for found in hours] == [
        (NOW - HOUR, 3.5), (NOW - 2 * HOUR, 4),
    ]  # fmt: skip
    assert (await read(meter_id, spans | {"customer": "cus_9"})).data == []
    with pytest.raises(stripe.InvalidRequestError, match="multiples of 60"):
        await read(meter_id, spans | {"start_time": NOW - 59})


async def test_adjustments(client: stripe.StripeClient, sandbox: Sandbox, clock: Clock) -> None:
    await send(client, event("5", "gone", timestamp=NOW - 1))
    cancel: Any = {"event_name": METER, "type": "cancel", "cancel": {"identifier": "gone"}}
    adjusted = await client.v1.billing.meter_event_adjustments.create_async(cancel)
    assert adjusted.status == "complete"
    assert [kept["cancelled"] for kept in await accepted(sandbox)] == [True]
    spans: Any = {"customer": WHO, "start_time": NOW - HOUR, "end_time": NOW}
    meter_id = next(iter(sandbox.stripe.meters))
    assert (await client.v1.billing.meters.event_summaries.list_async(meter_id, spans)).data == []
    clock.now += 24 * HOUR + 1
    with pytest.raises(stripe.InvalidRequestError, match="24 hours"):
        await client.v1.billing.meter_event_adjustments.create_async(cancel)


async def test_v2_events_and_stream(
    client: stripe.StripeClient, sandbox: Sandbox, http: stripe.AIOHTTPClient, clock: Clock
) -> None:
    at = datetime.fromtimestamp(NOW, UTC) - timedelta(seconds=1)
    given: Any = event("3", "v2", timestamp=at.isoformat())
    said = await client.v2.billing.meter_events.create_async(given)
    assert (said.object, said.identifier) == ("v2.billing.meter_event", "v2")
    cancelled = await client.v2.billing.meter_event_adjustments.create_async(
        {"event_name": METER, "type": "cancel", "cancel": {"identifier": "v2"}}
    )
    assert (cancelled.status, cancelled.created) == ("complete", "2026-11-23T00:00:00.000Z")
    assert [kept["cancelled"] for kept in await accepted(sandbox)] == [True]
    session = await client.v2.billing.meter_event_session.create_async()
    assert session.expires_at
    stream = connect(sandbox, session.authentication_token, http).v2.billing.meter_event_stream
    batch: Any = {"events": [event("1", "s1"), event("2", "s1"), event("4", "s2", event_name="nowhere")]}
    await stream.create_async(batch)
    assert [(kept["identifier"], kept["timestamp"]) for kept in await accepted(sandbox)] == [
        ("v2", NOW - 1), ("s1", NOW),
    ]  # fmt: skip
    uncounted = (await control(sandbox, "stripe", "/events", method="GET"))["uncounted"]
    assert [one["code"] for one in uncounted] == ["meter_event_invalid_value", "no_meter"]
    clock.now += 900
    with pytest.raises(stripe.TemporarySessionExpiredError):
        await stream.create_async(batch)


async def test_troubles(client: stripe.StripeClient, sandbox: Sandbox, http: stripe.AIOHTTPClient) -> None:
    await control(sandbox, "stripe", status=429, reason="global-rate", times=1, path="meter_events")
    with pytest.raises(stripe.RateLimitError) as limited:
        await send(client, event())
    assert (limited.value.headers or {})["stripe-rate-limited-reason"] == "global-rate"
    await control(sandbox, "stripe", status=500, times=1)
    with pytest.raises(stripe.APIError):
        await send(client, event(), "same")
    await control(sandbox, "stripe", drop=True, times=1)
    with pytest.raises(stripe.APIConnectionError):
        await send(client, event("1", "lost-before"))
    assert await accepted(sandbox) == []
    await control(sandbox, "stripe", drop=True, accept=True, times=1)
    with pytest.raises(stripe.APIConnectionError):
        await send(client, event("1", "lost-after"))
    assert [kept["identifier"] for kept in await accepted(sandbox)] == ["lost-after"]
    with pytest.raises(stripe.AuthenticationError):
        await send(connect(sandbox, "sk_test_wrong", http), event())
    unknown: Any = client.v1.coupons.list_async()
    with pytest.raises(stripe.InvalidRequestError, match="Unrecognized request URL"):
        await unknown


@pytest.mark.parametrize(
    ("body", "form"),
    [
        ("a=1&b=", {"a": "1", "b": ""}),
        ("p[x]=1&p[y][z]=2%26", {"p": {"x": "1", "y": {"z": "2&"}}}),
        ("l[]=1&l[]=2&m[0]=3&m[1]=4", {"l": ["1", "2"], "m": ["3", "4"]}),
        ("", {}),
    ],
)
def test_forms(body: str, form: dict[str, Any]) -> None:
    assert read_form(body) == form


@pytest.mark.parametrize("body", ["a=1&a[b]=2", "a[b]=2&a=1", "a" + "[b]" * 20 + "=1"])
def test_forms_that_contradict_themselves(body: str) -> None:
    with pytest.raises(ValueError, match=": "):
        read_form(body)


@given(st.text(alphabet="ab[]=&%01", max_size=30))
def test_any_form_is_read_or_refused(body: str) -> None:
    try:
        form = read_form(body)
    except ValueError:
        return  # names that contradict each other; anything else would be an error of the reader
    assert all(isinstance(value, str | dict | list) for value in form.values())


async def test_pages_of_a_list(client: stripe.StripeClient) -> None:
    """docs.stripe.com, api/pagination: a cursor is an object of the list."""
    made = [(await client.v1.customers.create_async({})).id for _ in range(5)][::-1]
    read = client.v1.customers.list_async
    page = await read({"limit": 2, "starting_after": made[1]})
    assert ([one.id for one in page.data], page.has_more) == (made[2:4], True)
    page = await read({"limit": 2, "ending_before": made[3]})
    assert ([one.id for one in page.data], page.has_more) == (made[1:3], True)
    last = [one.id async for one in (await read({"limit": 2})).auto_paging_iter()][-1]
    assert ((await read({"starting_after": last})).data, (await read({"limit": 100})).has_more) == ([], False)
    with pytest.raises(stripe.InvalidRequestError, match="only specify one"):
        await read({"starting_after": made[0], "ending_before": made[3]})
    for name in ("starting_after", "ending_before"):
        with pytest.raises(stripe.InvalidRequestError, match="No such") as caught:
            await read({name: "cus_unknown"})  # type: ignore[arg-type]
        assert (caught.value.code, caught.value.param) == ("resource_missing", name)
    for wrong in (0, 101):
        with pytest.raises(stripe.InvalidRequestError):
            await read({"limit": wrong})
