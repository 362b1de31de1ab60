"""Subscriptions that are not a plain month, from the call to the invoice and back: every sum is explained, or said."""

import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from gateway.billing.reconcile.run import reconcile
from gateway.config.settings import Settings
from gateway.kit.instants import Period
from gateway.ledger.store import Ledger
from gateway.stores.postgres import Pool
from tests.billing.billed_month import FIRST, Month, open_month
from tests.conftest import METER
from tests.support.invoke import gateway
from tests.support.stripe_shop import DAY, HOUR, JANUARY, START

UNTIL = FIRST + timedelta(days=31)


@pytest.fixture
async def month(ledger: Ledger) -> AsyncIterator[Month]:
    async with open_month(ledger) as made:
        yield made


async def explained(month: Month, database_url: str, invoice: str) -> list[dict[str, Any]]:
    """Its lines, all of which are explained."""
    done = await gateway(month.environment(database_url), "stripe", "explain", invoice, "--json")
    assert (done.status, done.error) == (0, "")
    chains: list[dict[str, Any]] = json.loads(done.out)["chains"]
    assert all(chain["causes"] == [] for chain in chains)
    return chains


async def said(month: Month, database_url: str, now: datetime) -> dict[str, int]:
    """What a reconciliation of December says at an instant, nano-USD by cause; of one customer."""
    result = await reconcile(Settings.of(month.environment(database_url)), Period(FIRST, UNTIL), now)
    (own,) = result.payers
    assert result.fails is any(one.cause in ("unexplained", "foreign") for one in own.differences)
    return {one.cause: one.nano for one in own.differences}


async def test_a_price_that_changes_in_the_middle(month: Month, database_url: str) -> None:
    client, ann = month.shop.client.v1, await month.add_user("ann")
    wanted: Any = {
        "currency": "usd", "product_data": {"name": "x"}, "unit_amount_decimal": "0.0001",
        "recurring": {"interval": "month", "usage_type": "metered", "meter": month.shop.price.recurring.meter},
    }  # fmt: skip
    price = await client.prices.create_async(wanted)
    await month.book(ann, 24, 3_000_000_000)
    await month.report(START + 10 * DAY)
    item = {"id": month.subscription["items"].data[0].id, "price": price.id}
    change: Any = {"items": [item], "proration_behavior": "create_prorations"}
    await client.subscriptions.update_async(month.subscription.id, change)
    await month.sync()
    await month.book(ann, 20 * 24, 5_000_000_000)
    await month.report(JANUARY - HOUR)
    invoice = await month.invoice()
    chains = await explained(month, database_url, invoice.id)
    assert sorted(chain["line"]["quantity"] for chain in chains) == ["3000000", "5000000"]
    assert await said(month, database_url, UNTIL + timedelta(days=9)) == {}


async def test_a_period_from_the_middle_of_a_month(month: Month, database_url: str) -> None:
    client = month.shop.client.v1
    await client.subscriptions.cancel_async(month.subscription.id)
    begins = START + 14 * DAY + 12 * HOUR + 1200
    await month.shop.move_to(begins)
    month = month._replace(subscription=await month.shop.subscribe())
    await month.sync()
    ann = await month.add_user("ann")
    # In the hour in which it begins, in both months of its period, and in the last whole hour of it.
    for hours, nano in ((14 * 24 + 12.5, 1), (20 * 24, 2), (40 * 24, 4), (45 * 24 + 11.5, 8)):
        await month.book(ann, hours, nano * 1_000_000_000)
    await month.report(begins + 31 * DAY + HOUR - 1800)
    await month.shop.move_to(begins + 31 * DAY + 2 * HOUR)
    await month.sync()
    (invoice,) = await month.shop.invoices(customer=month.customer)
    (chain,) = await explained(month, database_url, invoice.id)
    assert (chain["line"]["quantity"], invoice.total) == ("15000000", 1500)
    assert await said(month, database_url, UNTIL + timedelta(days=40)) == {}


@pytest.mark.parametrize("invoices_now", [True, False])
async def test_a_subscription_that_is_cancelled(
    month: Month, database_url: str, pool: Pool, invoices_now: bool
) -> None:
    """At once: Stripe bills what was used only where it is asked to. What it drops is found."""
    ann = await month.add_user("ann")
    await month.book(ann, 24, 3_000_000_000)
    await month.report(START + 2 * DAY)
    cancel: Any = {"invoice_now": True} if invoices_now else {}
    await month.shop.client.v1.subscriptions.cancel_async(month.subscription.id, cancel)
    await month.sync()
    await month.book(ann, 72, 7_000_000_000)
    await month.report(START + 4 * DAY)
    held = await pool.fetch("select value, last_error from stripe_meter_events where state = 'unreportable'")
    assert [(row["value"], row["last_error"].partition(":")[0]) for row in held] == [(7_000_000, "after subscription")]
    found = await said(month, database_url, UNTIL + timedelta(days=9))
    assert found.pop("held") == -7_000_000_000
    assert found == ({} if invoices_now else {"unexplained": -3_000_000_000})
    if invoices_now:
        (invoice,) = await month.shop.invoices(customer=month.customer)
        (chain,) = await explained(month, database_url, invoice.id)
        assert chain["line"]["quantity"] == "3000000"


async def test_a_meter_that_is_archived_still_tells_what_it_has(month: Month, database_url: str) -> None:
    """And another one with its name may follow: what both have is compared."""
    meters, ann = month.shop.client.v1.billing.meters, await month.add_user("ann")
    await month.book(ann, 24, 3_000_000_000)
    await month.report(START + 2 * DAY)
    await month.invoice()
    await meters.deactivate_async(month.shop.price.recurring.meter)
    assert await said(month, database_url, UNTIL + timedelta(days=9)) == {}
    await month.billing.ensure_meter(METER)
    assert await said(month, database_url, UNTIL + timedelta(days=9)) == {}
