"""Our client of Stripe against the Stripe stand-in: whatever goes wrong on the way, an event is counted once.

The truth is what the stand-in accepted, never what the client was answered.
"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from gateway.billing.stripe import Billing
from gateway.billing.windows import (
    CredentialsRefused,
    Delivered,
    Duplicate,
    MeterEvent,
    MeterRefused,
    Outcome,
    Rejected,
    Retry,
)
from gateway.sandbox import credentials
from gateway.sandbox.server import METER, Sandbox, start
from tests.support.stand_ins import CODER, Clock, control, sandbox_at

NOW: Final = datetime(2026, 11, 23, tzinfo=UTC)
EVENT: Final = MeterEvent(METER, "cus_1", 1235, f"{METER}:cus_1:1795388400:0", NOW - timedelta(seconds=1))


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with sandbox_at(Clock(NOW.timestamp())) as running:
        running.stripe.customers.add(0, {}, customer_id="cus_1")
        yield running


@pytest.fixture
async def billing(sandbox: Sandbox) -> AsyncIterator[Billing]:
    billing = Billing(credentials.STRIPE_SECRET_KEY, base_url=sandbox.stripe_base_url, timeout_s=5)
    yield billing
    await billing.close()


def counted(sandbox: Sandbox) -> list[tuple[str, str, str, int]]:
    return [(one.customer, one.value, one.identifier, one.timestamp) for one in sandbox.stripe.events]


ONCE: Final = [("cus_1", "1235", EVENT.identifier, int(EVENT.timestamp.timestamp()))]


@pytest.mark.parametrize(
    ("trouble", "first", "then"),
    [
        ({}, Delivered, Delivered),
        ({"drop": True}, Retry, Delivered),
        ({"drop": True, "accept": True}, Retry, Delivered),
        ({"status": 429, "reason": "global-rate"}, Retry, Delivered),
        ({"status": 409, "code": "lock_timeout"}, Retry, Delivered),
        # Stripe plays a stored 500 back, so the client asks once more under a fresh key.
        ({"status": 500}, Retry, Delivered),
        ({"status": 500, "accept": True}, Retry, Duplicate),
        ({"status": 401}, CredentialsRefused, Delivered),
        # From something between: Stripe may have had the request, and then plays its own answer back.
        ({"body": ""}, Retry, Delivered),
        ({"body": "", "accept": True}, Retry, Delivered),
        ({"body": "", "status": 204, "accept": True}, Retry, Delivered),
        ({"body": "<html>", "accept": True}, Retry, Delivered),
        ({"body": "", "status": 302, "headers": {"Location": "/"}, "accept": True}, Retry, Delivered),
        ({"body": "<html>", "status": 400, "accept": True}, Retry, Delivered),
        ({"status": 408}, Retry, Delivered),
        ({"status": 408, "accept": True}, Retry, Delivered),
    ],
)
async def test_an_event_is_counted_once(
    sandbox: Sandbox, billing: Billing, trouble: dict[str, Any], first: type[Outcome], then: type[Outcome]
) -> None:
    if trouble:
        await control(sandbox, "stripe", times=1, **trouble)
    outcome = (await billing.deliver(EVENT)).outcome
    assert isinstance(outcome, first), outcome
    if isinstance(outcome, Retry):
        # Nothing may be called certain that could have been counted.
        assert outcome.in_doubt or not sandbox.stripe.events
    again = (await billing.deliver(EVENT)).outcome
    assert isinstance(again, then), again
    assert counted(sandbox) == ONCE


async def test_a_no_that_is_played_back_is_asked_for_anew(sandbox: Sandbox, billing: Billing) -> None:
    """Stripe also replays a 4xx once it has run the request: with the cause fixed, the same event gets through."""
    await control(sandbox, "stripe", times=1, status=400, message="no")
    assert (await billing.deliver(EVENT)).outcome == Rejected("400: no")
    assert counted(sandbox) == []
    assert (await billing.deliver(EVENT)).outcome == Delivered()
    assert counted(sandbox) == ONCE


async def test_an_archived_meter_stops_nothing_once_it_is_active_again(sandbox: Sandbox, billing: Billing) -> None:
    """Its refusal is kept for the event's idempotency key as well, and would stop the reporter for a day."""
    meters = billing.client.v1.billing.meters
    (meter,) = (await meters.list_async()).data
    await meters.deactivate_async(meter.id)
    assert isinstance((await billing.deliver(EVENT)).outcome, MeterRefused)
    await meters.reactivate_async(meter.id)
    assert (await billing.deliver(EVENT)).outcome == Delivered()
    assert counted(sandbox) == ONCE


async def test_a_wrong_key_counts_nothing(sandbox: Sandbox) -> None:
    billing = Billing("sk_test_wrong", base_url=sandbox.stripe_base_url, timeout_s=5)
    outcome = (await billing.deliver(EVENT)).outcome
    await billing.close()
    assert isinstance(outcome, CredentialsRefused)
    assert counted(sandbox) == []


async def test_meters_and_customers(sandbox: Sandbox, billing: Billing) -> None:
    (seeded,) = sandbox.stripe.meters
    assert await billing.check(METER) == ()
    assert await billing.ensure_meter(METER) == seeded
    (missing,) = await billing.check("other_meter")
    assert "no active meter" in missing
    assert await billing.ensure_meter("other_meter") != seeded
    assert await billing.check("other_meter") == ()
    customer = await billing.create_customer("user-1", "a@example.com")
    assert await billing.create_customer("user-1", "a@example.com") == customer
    assert sandbox.stripe.customers.get(customer)["metadata"] == {"user_id": "user-1"}


async def test_stripes_state_can_outlive_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "sandbox" / "stripe.json"
    clock = Clock(NOW.timestamp())
    seen: list[tuple[Any, Any]] = []
    for expected in (Delivered, Duplicate):
        running = await start(clock=clock, paced=False, coder=CODER, stripe_file=path)
        if not seen:
            running.stripe.customers.add(0, {}, customer_id="cus_1")
        billing = Billing(credentials.STRIPE_SECRET_KEY, base_url=running.stripe_base_url, timeout_s=5)
        assert isinstance((await billing.deliver(EVENT)).outcome, expected)
        if expected is Delivered:
            await billing.create_customer("user-1", "a@example.com")
            await billing.ensure_meter("other_meter")
        assert counted(running) == ONCE
        seen.append((running.stripe.customers.all, running.stripe.meters))
        await billing.close()
        await running.close()
    assert seen[0] == seen[1]
    assert [meter.event_name for meter in seen[1][1].values()] == [METER, "other_meter"]
    assert path.stat().st_mode & 0o777 == 0o600
