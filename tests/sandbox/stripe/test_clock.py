"""The moved clock of the Stripe stand-in, and what outlives a restart."""

from pathlib import Path
from typing import Any

import pytest
import stripe

from tests.support.stand_ins import control
from tests.support.stripe_shop import HOUR, JANUARY, START, Shop, open_shop


async def now_of(shop: Shop) -> int:
    shown: int = (await control(shop.sandbox, "stripe", "/clock", method="GET"))["now"]
    return shown


async def test_the_clock_goes_ahead_only(shop: Shop) -> None:
    assert await now_of(shop) == START
    assert (await control(shop.sandbox, "stripe", "/clock", advance_s=90))["now"] == START + 90
    assert (await control(shop.sandbox, "stripe", "/clock", now=START + HOUR))["now"] == START + HOUR
    orders: list[dict[str, Any]] = [{"now": START}, {"advance_s": -1}, {}, {"now": JANUARY, "advance_s": 1}]
    for wrong in orders:
        with pytest.raises(AssertionError, match="error"):
            await control(shop.sandbox, "stripe", "/clock", **wrong)
    assert (await shop.client.v1.customers.create_async({})).created == START + HOUR


async def test_events_are_judged_by_the_moved_time(shop: Shop) -> None:
    subscription = await shop.subscribe()
    with pytest.raises(stripe.InvalidRequestError, match="5 minutes"):
        await shop.use(subscription.customer, 1, START + HOUR)
    await shop.move_to(START + HOUR)
    await shop.use(subscription.customer, 1, START + HOUR)
    await shop.move_to(START + 36 * 24 * HOUR)
    with pytest.raises(stripe.InvalidRequestError, match="35 days"):
        await shop.use(subscription.customer, 1, START + HOUR)


async def test_summaries_show_an_event_when_the_lag_is_over(shop: Shop) -> None:
    subscription = await shop.subscribe()
    await control(shop.sandbox, "stripe", "/ways", summaries_lag_s=120)
    await shop.use(subscription.customer, 7, START)
    assert await shop.summed(subscription.customer, START, JANUARY) == []
    await shop.move_to(START + 119)
    assert await shop.summed(subscription.customer, START, JANUARY) == []
    await shop.move_to(START + 120)
    assert await shop.summed(subscription.customer, START, JANUARY) == [7]


async def test_what_stripe_knows_outlives_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stripe, "enable_telemetry", False)
    file = tmp_path / "stripe.json"
    async with open_shop(file) as shop:
        await control(shop.sandbox, "stripe", "/settings", grace_h=2)
        subscription = await shop.subscribe()
        await shop.use(subscription.customer, 1_000_000, START)
        await shop.move_to(JANUARY)
        (draft,) = await shop.invoices()
    async with open_shop(file) as shop:
        assert await now_of(shop) == JANUARY
        await shop.use(subscription.customer, 1_000_000, JANUARY - 1)
        await shop.move_to(JANUARY + 2 * HOUR)
        (invoice,) = await shop.invoices()
        assert (invoice.id, invoice.status, invoice.total) == (draft.id, "paid", 200)
        await shop.move_to(JANUARY + 31 * 24 * HOUR)
        assert len(await shop.invoices()) == 2
