"""Every unit of usage is on the invoice of its period or on none, whatever the order of events and clock."""

import itertools
from decimal import Decimal
from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.sandbox.stripe.service import StripeService
from tests.support.stand_ins import Clock
from tests.support.stripe_shop import DAY, HOUR, START

EVENT = "usage"


class Usage(NamedTuple):
    """One event as the model sees it."""

    timestamp: int
    arrival: int
    value: int


class Step(NamedTuple):
    """Time that passes, and an event that then comes."""

    pause_s: int
    age_s: int
    value: int


STEPS = st.lists(
    st.builds(
        Step,
        st.one_of(st.integers(0, 20 * DAY), st.sampled_from([0, 1, HOUR - 1, HOUR, DAY])),
        st.one_of(st.integers(-300, 34 * DAY), st.sampled_from([0, 1, HOUR, DAY])),
        st.integers(-500_000, 2_000_000),
    ),
    max_size=25,
)


@settings(deadline=None, max_examples=30)
@given(STEPS, st.sampled_from([0, 1, 24, 72]), st.integers(0, 30 * DAY))
def test_usage_is_billed_once_or_not_at_all(steps: list[Step], grace_h: int, anchor_in_s: int) -> None:
    clock = Clock(START)
    service = StripeService("sk_test_model", clock=clock)
    service.account.settings = type(service.account.settings)(grace_h=grace_h)
    meter = service.add_meter(EVENT)
    customer = service.create_customer({})["id"]
    recurring = {"interval": "month", "usage_type": "metered", "meter": meter.id}
    wanted: dict[str, Any] = {"currency": "usd", "unit_amount_decimal": "0.0001", "recurring": recurring}
    price = service.billing.catalog.create_price(wanted | {"product_data": {"name": "Usage"}})
    anchor = {"billing_cycle_anchor": str(START + anchor_in_s)}
    service.billing.subscriptions.create({"customer": customer, "items": [{"price": price["id"]}], **anchor})
    sent = []
    for step in steps:
        clock.now += step.pause_s
        service.settle()
        one = Usage(max(START - DAY, int(clock.now) - step.age_s), int(clock.now), step.value)
        payload = {"stripe_customer_id": customer, "value": str(one.value)}
        service.add_event({"event_name": EVENT, "payload": payload, "timestamp": str(one.timestamp)})
        sent.append(one)
    clock.now += 70 * DAY
    service.settle()
    ended = [one for one in service.account.all("invoice") if one["status"] == "paid"]
    periods = sorted((one["period_start"], one["period_end"]) for one in ended)
    assert periods[0][0] == START
    assert all(before[1] == after[0] for before, after in itertools.pairwise(periods))
    for invoice in ended:
        (line,) = invoice["lines"]["data"]
        start, end = invoice["period_start"], invoice["period_end"]
        in_time = [one.value for one in sent if start <= one.timestamp < end and one.arrival < end + grace_h * HOUR]
        billed = max(0, sum(in_time))
        assert Decimal(line["quantity_decimal"]) == billed
        assert line["amount"] == (billed + 5_000) // 10_000  # to the nearest cent, half up
    balance = service.billing.balances.of(customer)
    assert sum(one["amount_paid"] for one in ended) + balance == sum(one["total"] for one in ended)
