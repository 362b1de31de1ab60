"""INV-7 over customers that Stripe does not have: each is a breach with its figures, and hides none of the others."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import pytest

from gateway.audit.delivery import stripe_agrees
from gateway.audit.reads.delivery import Counted, DeliveredHour
from gateway.audit.result import InvariantResult
from gateway.billing.stripe import Billing
from gateway.billing.windows import Customer, Delivered, MeterEvent, Rejected
from gateway.kit.errors import ConfigError, DependencyDown
from gateway.kit.instants import Period
from gateway.sandbox import credentials
from gateway.sandbox.server import METER, Sandbox
from tests.support.stand_ins import Clock, control, sandbox_at

NOW: Final = datetime(2026, 11, 23, 12, tzinfo=UTC)
TEN: Final = NOW - timedelta(hours=2)
ASKED: Final = Period(NOW - timedelta(days=1), NOW)


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with sandbox_at(Clock(NOW.timestamp())) as running:
        yield running


@pytest.fixture
async def billing(sandbox: Sandbox) -> AsyncIterator[Billing]:
    edge = Billing(credentials.STRIPE_SECRET_KEY, base_url=sandbox.stripe_base_url, timeout_s=10)
    yield edge
    await edge.close()


async def sent(billing: Billing, customers: Sequence[str]) -> list[DeliveredHour]:
    """An event of each, as the outbox has it afterwards."""
    for customer in customers:
        event = MeterEvent(METER, customer, 5, f"{METER}:{customer}:1:0", TEN + timedelta(minutes=59))
        assert (await billing.deliver(event)).outcome == Delivered()
    return [DeliveredHour(METER, customer, TEN, 5, 1, unsettled=False) for customer in sorted(customers)]


async def judge(hours: list[DeliveredHour], stripe: Any) -> InvariantResult:
    async def each() -> AsyncGenerator[DeliveredHour, None]:
        for hour in hours:
            yield hour

    return await stripe_agrees(each(), ASKED, stripe)


@pytest.mark.parametrize("status", [200, 400, 404])
async def test_customers_that_stripe_does_not_have_are_a_verdict(
    sandbox: Sandbox, billing: Billing, status: int
) -> None:
    await control(sandbox, "stripe", "/customers", id="cus_live", livemode=True)
    for customer in ("cus_a", "cus_gone", "cus_z"):
        await control(sandbox, "stripe", "/customers", id=customer)
    sandbox.stripe.customers.delete("cus_gone")
    await control(sandbox, "stripe", "/ways", summaries_of_unknown=status)
    verdict = await judge(await sent(billing, ["cus_a", "cus_gone", "cus_live", "cus_never", "cus_z"]), billing)
    assert (verdict.state, verdict.wrong) == ("breach", ("3 × customer that Stripe does not have",))
    assert verdict.figures == {
        "customers": 5,
        "hours compared": 2,  # of those that Stripe has, on either side of the others
        "meter events": 2,
        "micro-USD": 10,
        "hours not settled yet": 0,
        "customers that Stripe does not have": 3,
        "their meter events": 3,
        "their micro-USD": 15,
    }
    gone, live, never = verdict.examples
    assert gone.startswith("cus_gone has been deleted at Stripe: 1 event(s) of 5 micro-USD were sent")
    assert live.startswith("cus_live is of Stripe's other mode")
    assert never.startswith("cus_never is not there for STRIPE_SECRET_KEY (404: No such customer")


async def test_an_amount_that_was_never_counted_of_a_customer_that_is_there(sandbox: Sandbox, billing: Billing) -> None:
    await control(sandbox, "stripe", "/customers", id="cus_a")
    hours = [DeliveredHour(METER, "cus_a", TEN, 5, 1, unsettled=False)]
    assert (await judge(hours, billing)).wrong == ("1 × hour that differs",)


class Mute:
    """A Stripe that refuses to sum up one customer, whose key may not read customers."""

    async def read_counts(self, event_name: str, customer: str, since: datetime, until: datetime) -> Counted | Rejected:
        return Rejected("400: the range is too long") if customer == "cus_b" else {TEN: Decimal(5)}

    async def customer(self, customer_id: str) -> Customer:
        raise ConfigError("Stripe answered 403")


async def test_a_customer_without_summaries_hides_no_other() -> None:
    hours = [DeliveredHour(METER, customer, TEN, 5, 1, unsettled=False) for customer in ("cus_a", "cus_b", "cus_c")]
    verdict = await judge(hours, Mute())
    assert verdict.wrong == ("1 × customer that Stripe says nothing about",)
    assert verdict.examples == ("cus_b: 400: the range is too long",)
    assert verdict.figures["hours compared"] == 2


class Fading:
    """A Stripe that answers about the first customers only."""

    def __init__(self, error: Exception, counted: int) -> None:
        self.error = error
        self.counted = counted
        self.asked: list[str] = []

    async def read_counts(self, event_name: str, customer: str, since: datetime, until: datetime) -> Counted | Rejected:
        self.asked.append(customer)
        if customer != "cus_a":
            raise self.error
        return {TEN: Decimal(self.counted)}

    async def customer(self, customer_id: str) -> Customer:
        raise self.error


@pytest.mark.parametrize("error", [DependencyDown("stripe", "timed out"), ConfigError("Stripe has no such meter")])
@pytest.mark.parametrize(("counted", "state"), [(5, "no answer"), (6, "breach")])
async def test_what_stripe_does_not_answer_is_told_beside_what_it_does(
    error: Exception, counted: int, state: str
) -> None:
    hours = [DeliveredHour(METER, customer, TEN, 5, 1, unsettled=False) for customer in ("cus_a", "cus_b", "cus_c")]
    fading = Fading(error, counted)
    verdict = await judge(hours, fading)
    assert (verdict.state, verdict.figures["hours compared"], verdict.figures["customers"]) == (state, 1, 3)
    assert verdict.look.startswith(f"2 of 3 customers were not compared: {error}. Run it again")
    assert fading.asked == ["cus_a", "cus_b"]  # an outage is met once, not once a customer
