"""Answers that are not Stripe's, or not a no: whatever may have been counted stays in doubt, as the same event."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.billing.stripe import Billing
from gateway.billing.windows import CredentialsRefused, Delivered, Duplicate, Rejected, Retry
from gateway.kit.errors import ConfigError, DependencyDown
from tests.billing.test_stripe import EVENT, METER, OK, SECRET, meter, page
from tests.support import stripe_samples

HTML = "<html><body>Back soon</body></html>"
TYPED = {"type": "invalid_request_error", "message": "no"}


class Raw:
    """A Stripe, or something before it, that gives one answer to all; it remembers the methods and paths."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.answers: list[web.Response] = []

    async def handle(self, request: web.Request) -> web.Response:
        self.seen.append(f"{request.method} {request.path}")
        last = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        return web.Response(status=last.status, body=last.body, headers=last.headers)

    def say(self, status: int, body: Any, **headers: str) -> None:
        """Adds an answer; the last one is given for ever."""
        text = body if isinstance(body, bytes | str) else None
        made = web.json_response(body, status=status) if text is None else web.Response(status=status, body=text)
        for name, value in headers.items():
            made.headers[name.replace("_", "-")] = value
        self.answers.append(made)


@pytest.fixture
async def raw() -> AsyncIterator[tuple[Raw, Billing]]:
    stripe = Raw()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", stripe.handle)
    async with TestServer(app) as server:
        billing = Billing(SECRET, base_url=str(server.make_url("")), timeout_s=5)
        yield stripe, billing
        await billing.close()


UNREADABLE: list[tuple[int, Any]] = [
    (200, ""),
    (204, ""),
    (200, HTML),
    (200, b"\xff\xfe"),
    (200, "null"),
    (200, "[]"),
    (200, '"ok"'),
    (200, {}),
    (200, {"status": "ok"}),
    (200, OK | {"identifier": "another"}),
    (200, '{"object": "billing.meter_event", "identifier": "'),
    (202, ""),
    (304, ""),
    (400, ""),
    (400, HTML),
    (400, {"message": "no"}),
    (400, {"error": "no"}),
    (400, {"error": None}),
    (400, {"error": []}),
    (400, {"error": {"message": "no"}}),
    (400, {"error": TYPED | {"message": ["no"]}}),
    (401, HTML),
    (403, HTML),
    (402, HTML),
    (404, HTML),
    (404, {"error": {"code": 404, "message": "no route"}}),
    (408, HTML),
    (408, {"error": TYPED}),
    (413, HTML),
    (424, {"error": TYPED}),
    (425, {"error": TYPED}),
    (502, HTML),
    (500, {"error": None}),
]


@pytest.mark.parametrize(("status", "body"), UNREADABLE)
async def test_a_refusal_that_is_not_from_stripe_is_in_doubt(raw: tuple[Raw, Billing], status: int, body: Any) -> None:
    stripe, billing = raw
    stripe.say(status, body, Retry_After="7")
    outcome = (await billing.deliver(EVENT)).outcome
    assert isinstance(outcome, Retry), outcome
    assert outcome.in_doubt
    assert str(status) in outcome.reason
    assert "Back soon" not in outcome.reason  # whoever wrote that may have repeated the request in it
    # What stands between says when it will be back, in a body that is not JSON too.
    assert outcome.after_s == (None if body == OK | {"identifier": "another"} else 7.0)
    assert len(stripe.seen) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed_and_is_in_doubt(raw: tuple[Raw, Billing], status: int) -> None:
    stripe, billing = raw
    stripe.say(status, "", Location="/elsewhere")
    stripe.say(200, OK)
    outcome = (await billing.deliver(EVENT)).outcome
    assert isinstance(outcome, Retry)
    assert outcome.in_doubt
    assert stripe.seen == ["POST /v1/billing/meter_events"]


async def test_a_429_of_anybody_says_when(raw: tuple[Raw, Billing]) -> None:
    stripe, billing = raw
    stripe.say(429, HTML, Retry_After="9")
    assert (await billing.deliver(EVENT)).outcome == Retry("429: an answer that is not Stripe's", 9.0, in_doubt=False)


@pytest.mark.parametrize("status", [400, 402, 404])
async def test_a_no_of_stripes_is_one(raw: tuple[Raw, Billing], status: int) -> None:
    stripe, billing = raw
    stripe.say(status, {"error": TYPED})
    assert (await billing.deliver(EVENT)).outcome == Rejected(f"{status}: no")


@pytest.mark.parametrize("status", [401, 403])
async def test_refused_credentials_are_stripes_words(raw: tuple[Raw, Billing], status: int) -> None:
    stripe, billing = raw
    stripe.say(status, {"error": TYPED})
    assert isinstance((await billing.deliver(EVENT)).outcome, CredentialsRefused)


async def test_the_samples(raw: tuple[Raw, Billing]) -> None:
    stripe, billing = raw
    stripe.say(200, stripe_samples.METER_EVENT | {"identifier": EVENT.identifier})
    assert (await billing.deliver(EVENT)).outcome == Delivered()
    stripe.answers.clear()
    stripe.say(400, stripe_samples.duplicate(EVENT.identifier), stripe_should_retry="false")
    assert (await billing.deliver(EVENT)).outcome == Duplicate()
    stripe.answers.clear()
    old = stripe_samples.too_old(1795392000)
    stripe.say(400, old)
    assert (await billing.deliver(EVENT)).outcome == Rejected(f"400: {old['error']['message']}")
    stripe.answers.clear()
    stripe.say(200, page(meter()))
    stripe.say(200, stripe_samples.SUMMARIES | {"has_more": False})  # which the page leaves out
    hours = await billing.read_counts(METER, "cus_sample", datetime(2026, 11, 22, tzinfo=UTC), datetime.now(UTC))
    assert isinstance(hours, dict)
    assert {f"{at:%H}": int(there) for at, there in hours.items()} == {"23": 1235, "20": 40}
    stripe.answers.clear()
    stripe.say(200, page(meter(id="mtr_sample", event_name="openai_usage_micro_usd")))
    reports = [stripe_samples.ERROR_REPORT, stripe_samples.NO_METER]
    # An older sample of Stripe's names the idempotency key; a list may leave `data` out, as a notification does.
    older = stripe_samples.with_request({"id": "", "idempotency_key": f"{METER}:cus_older:1795388400:0"})
    stripe.say(200, {"data": [*reports, stripe_samples.NOTIFICATION, older], "next_page_url": None})
    stripe.say(200, stripe_samples.ERROR_REPORT)
    found = {one.code: one for one in await billing.read_uncounted(METER, datetime(2026, 11, 1, tzinfo=UTC))}
    assert {code: one.events for code, one in found.items()} == {"meter_event_no_customer_defined": 3, "no_meter": 1}
    assert found["meter_event_no_customer_defined"].identifiers == (
        f"{METER}:cus_older:1795388400:0", f"{METER}:cus_sample:1795388400:0",
    )  # fmt: skip


async def ask_all(billing: Billing) -> list[str]:
    """Every other call of this edge: what it raises."""
    since, until = datetime(2026, 11, 22, tzinfo=UTC), datetime(2026, 11, 23, tzinfo=UTC)
    raised = []
    for call in (
        billing.ensure_meter(METER),
        billing.check(METER),
        billing.read_counts(METER, "cus_1", since, until),
        billing.read_uncounted(METER, since),
        billing.customer("cus_1"),
        billing.create_customer("u-1", "a@example.com"),
    ):
        with pytest.raises(DependencyDown) as caught:
            await call
        raised.append(caught.value.what)
    return raised


@pytest.mark.parametrize(("status", "body"), [
    (200, ""), (204, ""), (200, HTML), (200, "[]"), (200, {}), (200, {"object": "list"}), (302, ""), (400, HTML),
    (400, {"error": []}), (404, HTML), (408, HTML), (424, {"error": TYPED}), (503, HTML),
])  # fmt: skip
async def test_an_answer_that_is_not_from_stripe_is_an_outage_for_other_calls(
    raw: tuple[Raw, Billing], status: int, body: Any
) -> None:
    stripe, billing = raw
    stripe.say(status, body)
    if body == {"object": "list"}:
        with pytest.raises(DependencyDown):
            await billing.check(METER)
    else:
        assert await ask_all(billing) == ["stripe"] * 6


async def test_a_meter_without_a_member_is_judged(raw: tuple[Raw, Billing]) -> None:
    stripe, billing = raw
    bare = meter()
    del bare["event_time_window"]
    stripe.say(200, page(bare))
    assert await billing.check(METER) == ()
    stripe.answers.clear()
    stripe.say(200, page({"object": "billing.meter", "id": "mtr_1", "event_name": METER}))
    assert [problem.split(";")[0] for problem in await billing.check(METER)] == [
        "its formula is None and must be 'sum'",
        "its customer key must be 'stripe_customer_id'",
        "its value key must be 'value'",
    ]


async def test_what_stripe_says_of_a_customer(raw: tuple[Raw, Billing]) -> None:
    stripe, billing = raw
    modes = "; a similar object exists in live mode, but a test mode key was used to make this request."
    missing = {"type": "invalid_request_error", "code": "resource_missing", "param": "id"}
    for status, body, says in (
        (200, {"object": "customer", "id": "cus_1", "livemode": True}, (True, None)),
        (200, {"object": "customer", "id": "cus_1", "livemode": False}, (False, None)),
        (200, {"object": "customer", "id": "cus_1", "deleted": True}, (None, "deleted")),
        (404, {"error": missing | {"message": f"No such customer: 'cus_1'{modes}"}}, (None, "other mode")),
        (404, {"error": missing | {"message": "No such customer: 'cus_1'"}}, (None, "No such customer")),
    ):
        stripe.answers.clear()
        stripe.say(status, body)
        found = await billing.customer("cus_1")
        assert found.is_live == says[0]
        assert (found.problem is None) == (says[1] is None)
        assert says[1] is None or says[1] in str(found.problem)


async def test_a_customer_that_was_made_within_the_day_is_explained(raw: tuple[Raw, Billing]) -> None:
    stripe, billing = raw
    stripe.say(400, {"error": {"type": "idempotency_error", "message": "Keys for idempotent requests can only …"}})
    with pytest.raises(ConfigError, match=r"within the last day, with another e-mail .* --stripe-customer cus_"):
        await billing.create_customer("u-1", "b@example.com")
    stripe.answers.clear()
    stripe.say(200, {"object": "customer", "id": "cus_9"}, idempotent_replayed="true")
    stripe.say(200, {"object": "customer", "id": "cus_9", "deleted": True})
    with pytest.raises(ConfigError, match=r"cus_9, made for user u-1 .* has been deleted at Stripe"):
        await billing.create_customer("u-1", "a@example.com")
