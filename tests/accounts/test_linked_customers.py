"""A customer is linked only where an invoice of Stripe's will have its usage. Stripe is the stand-in."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.accounts.store import Accounts
from gateway.sandbox import credentials
from gateway.sandbox.server import METER
from gateway.stores.postgres import Pool
from tests.support.invoke import Done, gateway
from tests.support.stand_ins import control
from tests.support.stripe_shop import Shop, open_shop


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with open_shop() as shop:
        await control(shop.sandbox, "stripe", "/customers", id="cus_usd")
        await control(shop.sandbox, "stripe", "/customers", id="cus_eur", currency="eur")
        yield shop


@pytest.fixture
def env(database_url: str, shop: Shop) -> dict[str, str]:
    return {
        "DATABASE_URL": database_url,
        "OPENAI_BASE_URL": shop.sandbox.openai_base_url,
        "STRIPE_SECRET_KEY": credentials.STRIPE_SECRET_KEY,
        "STRIPE_BASE_URL": shop.sandbox.stripe_base_url,
    }


async def linking(env: dict[str, str], pool: Pool, customer: str) -> Done:
    """Both commands, which say the same; what is linked is linked."""
    who = f"{customer.removeprefix('cus_')}@example.com"
    await Accounts(pool).create_user(who)
    done = await gateway(env, "users", "set", who, "--stripe-customer", customer)
    made = await gateway(env, "users", "create", f"new.{who}", "--stripe-customer", customer)
    assert (made.status, made.error) == (done.status, done.error)
    linked = await pool.fetchval("select count(*) from users where stripe_customer_id = $1", customer)
    assert linked == (0 if done.status else 2)
    return done


async def price(shop: Shop, **more: Any) -> Any:
    """The price that `gateway stripe setup` makes."""
    wanted: Any = {
        "currency": "usd",
        "product_data": {"name": "OpenAI usage"},
        "unit_amount_decimal": "0.0001",
        "recurring": {"interval": "month", "usage_type": "metered", "meter": shop.price.recurring.meter},
        "lookup_key": METER,
        **more,
    }
    return await shop.client.v1.prices.create_async(wanted)


async def test_without_any_subscription_at_stripe_periods_are_months_and_it_is_linked(
    env: dict[str, str], pool: Pool, shop: Shop
) -> None:
    assert (await linking(env, pool, "cus_usd")).error == ""


async def test_a_customer_without_a_price_on_the_meter_is_refused_where_others_have_one(
    env: dict[str, str], pool: Pool, shop: Shop
) -> None:
    await control(shop.sandbox, "stripe", "/customers", id="cus_other")
    await shop.subscribe("cus_other")
    done = await linking(env, pool, "cus_usd")
    assert done.error == (
        f"--stripe-customer: cus_usd has no subscription with a price on the meter {METER}, so its usage would be on "
        "no invoice: subscribe it to the price of `gateway stripe setup` first. Nothing was changed"
    )
    await shop.subscribe("cus_usd")
    assert (await gateway(env, "users", "set", "usd@example.com", "--stripe-customer", "cus_usd")).error == ""


async def test_a_subscription_to_another_meter_or_one_that_has_ended_does_not_count(
    env: dict[str, str], pool: Pool, shop: Shop
) -> None:
    meter = await shop.client.v1.billing.meters.create_async(
        {"display_name": "Seats", "event_name": "seats", "default_aggregation": {"formula": "sum"}}
    )
    recurring = {"interval": "month", "usage_type": "metered", "meter": meter.id}
    seats = await price(shop, lookup_key="seats", recurring=recurring)
    await shop.client.v1.subscriptions.create_async({"customer": "cus_usd", "items": [{"price": seats.id}]})
    assert "has no subscription with a price on the meter" in (await linking(env, pool, "cus_usd")).error
    ended = await shop.subscribe("cus_usd")
    await shop.client.v1.subscriptions.cancel_async(ended.id)
    assert "has no subscription with a price on the meter" in (await linking(env, pool, "cus_usd")).error


async def test_a_customer_of_another_currency_needs_a_price_that_has_it(
    env: dict[str, str], pool: Pool, shop: Shop
) -> None:
    await price(shop)
    done = await linking(env, pool, "cus_eur")
    assert done.error == (
        f"--stripe-customer: cus_eur is charged in eur at Stripe, and no price with the lookup key {METER} has that "
        "currency: give the price of `gateway stripe setup` currency_options for eur, or link another customer. "
        "Nothing was changed"
    )
    options: Any = {"eur": {"unit_amount_decimal": "0.00009"}}
    both = await price(shop, currency_options=options, transfer_lookup_key=True)
    # Stripe shows them where they are asked for only.
    assert not hasattr(both, "currency_options")
    assert (await linking(env, pool, "cus_eur")).error == ""


async def test_a_key_that_may_not_read_subscriptions_links_nobody(env: dict[str, str], pool: Pool, shop: Shop) -> None:
    await control(shop.sandbox, "stripe", "", path="/subscriptions", status=403, times=2)
    done = await linking(env, pool, "cus_usd")
    assert "it must be allowed to read customers, subscriptions and prices" in done.error
