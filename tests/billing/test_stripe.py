"""The Stripe edge with the real SDK: what each answer of Stripe means for the event that was sent."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.billing.stripe import Billing
from gateway.billing.windows import CredentialsRefused, Delivered, Duplicate, MeterEvent, Outcome, Rejected, Retry
from gateway.kit.errors import ConfigError, DependencyDown
from tests.support.servers import free_port

METER = "openai_usage_micro_usd"
SECRET = "sk_test_canary_0123456789"
EVENT = MeterEvent(METER, "cus_1", 1235, f"{METER}:cus_1:1795348800:0", datetime(2026, 11, 22, 12, 59, 59, tzinfo=UTC))
OK = {"object": "billing.meter_event", "identifier": EVENT.identifier, "event_name": METER, "livemode": False,
      "created": 1, "timestamp": 1, "payload": {}}  # fmt: skip

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Canned:
    """A Stripe that gives the answers it is told to, in order, and remembers what it was sent."""

    def __init__(self) -> None:
        self.answers: list[Handler] = []
        self.headers: list[dict[str, str]] = []
        self.forms: list[dict[str, str]] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        self.forms.append({name: str(value) for name, value in (await request.post()).items()})
        return await self.answers.pop(0)(request)

    def say(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        async def answer(_: web.Request) -> web.StreamResponse:
            return web.json_response(body, status=status, headers=headers)

        self.answers.append(answer)

    def fail(self, status: int, message: str, headers: dict[str, str] | None = None, **error: str) -> None:
        self.say(status, {"error": {"type": "invalid_request_error", "message": message, **error}}, headers)


@pytest.fixture
async def canned() -> AsyncIterator[tuple[Canned, Billing]]:
    stripe = Canned()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", stripe.handle)
    server = TestServer(app)
    await server.start_server()
    billing = Billing(SECRET, base_url=str(server.make_url("")), timeout_s=2)
    yield stripe, billing
    await billing.close()
    await server.close()


async def test_what_is_sent(canned: tuple[Canned, Billing]) -> None:
    stripe, billing = canned
    stripe.say(200, OK)
    assert (await billing.deliver(EVENT._replace(value=-(10**15 - 1)))).outcome == Delivered()
    assert stripe.forms == [
        {
            "event_name": METER,
            "identifier": EVENT.identifier,
            "payload[stripe_customer_id]": "cus_1",
            "payload[value]": "-999999999999999",
            "timestamp": "1795352399",
        }
    ]
    (headers,) = stripe.headers
    assert headers["idempotency-key"] == EVENT.identifier
    assert "x-stripe-client-telemetry" not in headers
    assert "platform" not in headers["x-stripe-client-user-agent"]


@pytest.mark.parametrize(
    ("status", "message", "headers", "expected"),
    [
        (400, f"An event already exists with identifier {EVENT.identifier}.", {"stripe-should-retry": "false"},
         Duplicate()),
        (400, 'No active meter found for event name "x"', {},
         Rejected('400: No active meter found for event name "x"')),
        (400, "Timestamp too far in the past", {}, Rejected("400: Timestamp too far in the past")),
        (404, "gone", {}, Rejected("404: gone")),
        (429, "slow down", {}, Retry("429: slow down", None, in_doubt=False)),
        (429, "slow down", {"retry-after": "7"}, Retry("429: slow down", 7.0, in_doubt=False)),
        (409, "in use", {}, Retry("409: in use", None, in_doubt=True)),
        (500, "oops", {}, Retry("500: oops", None, in_doubt=True)),
        (503, "oops", {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, Retry("503: oops", None, in_doubt=True)),
        (400, "try again", {"stripe-should-retry": "true"}, Retry("400: try again", None, in_doubt=True)),
    ],
)  # fmt: skip
async def test_what_an_answer_means(
    canned: tuple[Canned, Billing], status: int, message: str, headers: dict[str, str], expected: Outcome
) -> None:
    stripe, billing = canned
    stripe.fail(status, message, headers)
    assert (await billing.deliver(EVENT)).outcome == expected
    assert len(stripe.forms) == 1  # the SDK retries nothing by itself


@pytest.mark.parametrize("status", [401, 403])
async def test_refused_credentials_are_not_repeated_in_the_reason(canned: tuple[Canned, Billing], status: int) -> None:
    stripe, billing = canned
    stripe.fail(status, f"Invalid API Key provided: {SECRET}")
    outcome = (await billing.deliver(EVENT)).outcome
    assert isinstance(outcome, CredentialsRefused)
    assert SECRET not in repr(outcome)
    stripe.fail(status, f"Invalid API Key provided: {SECRET}")
    with pytest.raises(ConfigError, match="STRIPE_SECRET_KEY") as caught:
        await billing.ensure_meter(METER)
    assert SECRET not in str(caught.value)


async def test_a_stored_failure_is_asked_for_under_a_fresh_key(canned: tuple[Canned, Billing]) -> None:
    stripe, billing = canned
    stripe.fail(500, "oops", {"idempotent-replayed": "true"})
    stripe.say(200, OK)
    assert (await billing.deliver(EVENT)).outcome == Delivered()
    first, second = stripe.headers
    assert first["idempotency-key"] == EVENT.identifier != second["idempotency-key"]
    assert stripe.forms[0] == stripe.forms[1]  # the identifier still keeps it from counting twice


async def test_no_connection_leaves_no_doubt() -> None:
    billing = Billing(SECRET, base_url=f"http://127.0.0.1:{free_port()}", timeout_s=2)
    outcome = (await billing.deliver(EVENT)).outcome
    with pytest.raises(DependencyDown, match="stripe"):
        await billing.check(METER)
    await billing.close()
    assert isinstance(outcome, Retry)
    assert not outcome.in_doubt


async def test_a_lost_answer_leaves_doubt(canned: tuple[Canned, Billing]) -> None:
    stripe, billing = canned

    async def drop(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def break_off(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-length": "1000"})
        await response.prepare(request)
        await response.write(b'{"object": "billing.')
        assert request.transport is not None
        request.transport.close()
        return response

    for way in (drop, break_off):
        stripe.answers.append(way)
        outcome = (await billing.deliver(EVENT)).outcome
        assert isinstance(outcome, Retry), way
        assert outcome.in_doubt, way


async def test_silence_is_bounded_and_leaves_doubt(canned: tuple[Canned, Billing]) -> None:
    stripe, usual = canned
    silent = asyncio.Event()

    async def wait(_: web.Request) -> web.StreamResponse:
        await silent.wait()
        return web.Response()

    stripe.answers.append(wait)
    billing = Billing(SECRET, base_url=usual.base_url, timeout_s=0.2)
    outcome = (await billing.deliver(EVENT)).outcome
    silent.set()
    await billing.close()
    assert isinstance(outcome, Retry)
    assert outcome.in_doubt


def meter(**changes: object) -> dict[str, object]:
    """An active meter that counts as ours should, but for `changes`."""
    return {
        "object": "billing.meter", "id": "mtr_1", "event_name": METER, "status": "active", "display_name": "usage",
        "default_aggregation": {"formula": "sum"}, "event_time_window": None, "livemode": False,
        "customer_mapping": {"type": "by_id", "event_payload_key": "stripe_customer_id"},
        "value_settings": {"event_payload_key": "value"},
    } | changes  # fmt: skip


def page(*meters: dict[str, object], has_more: bool = False) -> dict[str, object]:
    return {"object": "list", "url": "/v1/billing/meters", "has_more": has_more, "data": list(meters)}


async def test_the_meter_is_found_on_a_later_page(canned: tuple[Canned, Billing]) -> None:
    stripe, billing = canned
    stripe.say(200, page(meter(id="mtr_0", event_name="other"), has_more=True))
    stripe.say(200, page(meter()))
    assert await billing.ensure_meter(METER) == "mtr_1"


async def test_a_missing_meter_is_made(canned: tuple[Canned, Billing]) -> None:
    stripe, billing = canned
    stripe.say(200, page())
    stripe.say(200, meter())
    assert await billing.ensure_meter(METER) == "mtr_1"
    assert stripe.forms[1] == {
        "display_name": "OpenAI usage (micro-USD)",
        "event_name": METER,
        "default_aggregation[formula]": "sum",
        "customer_mapping[type]": "by_id",
        "customer_mapping[event_payload_key]": "stripe_customer_id",
        "value_settings[event_payload_key]": "value",
    }


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"default_aggregation": {"formula": "last"}}, "formula is 'last'"),
        ({"event_time_window": "hour"}, "event_time_window must be empty"),
        ({"customer_mapping": {"type": "by_id", "event_payload_key": "who"}}, "customer key must be"),
        ({"value_settings": {"event_payload_key": "tokens"}}, "value key must be 'value'"),
    ],
)
async def test_a_meter_that_would_count_wrongly_is_refused(
    canned: tuple[Canned, Billing], changes: dict[str, object], why: str
) -> None:
    stripe, billing = canned
    stripe.say(200, page(meter(**changes)))
    stripe.say(200, page(meter(**changes)))
    with pytest.raises(ConfigError, match=why):
        await billing.ensure_meter(METER)
    (problem,) = await billing.check(METER)
    assert why in problem


async def test_check_finds_what_is_wrong(canned: tuple[Canned, Billing]) -> None:
    stripe, billing = canned
    stripe.say(200, page(meter()))
    assert await billing.check(METER) == ()
    stripe.say(200, page())
    (problem,) = await billing.check(METER)
    assert "no active meter" in problem
    stripe.fail(401, "Invalid API Key provided")
    (problem,) = await billing.check(METER)
    assert "STRIPE_SECRET_KEY" in problem
    stripe.fail(500, "oops")
    with pytest.raises(DependencyDown, match="stripe: 500"):
        await billing.check(METER)


async def test_a_customer_is_made_once_per_user(canned: tuple[Canned, Billing]) -> None:
    stripe, billing = canned
    stripe.say(200, {"object": "customer", "id": "cus_9"})
    assert await billing.create_customer("u-1", "ada@example.com") == "cus_9"
    assert stripe.forms == [{"email": "ada@example.com", "metadata[user_id]": "u-1"}]
    assert stripe.headers[0]["idempotency-key"] == "customer:u-1"
