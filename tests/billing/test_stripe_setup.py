"""`gateway stripe setup` and `sync` at the stand-in, whose objects stripe-python judges."""

import json
from typing import Any

import pytest

from gateway.billing.setup import CENTS, prepare
from gateway.billing.stripe import Billing
from gateway.kit.errors import ConfigError
from gateway.sandbox import credentials
from gateway.stores.postgres import Pool
from tests.support.invoke import gateway
from tests.support.stripe_shop import Shop


def environment(shop: Shop, database_url: str) -> dict[str, str]:
    return {
        "DATABASE_URL": database_url,
        "STRIPE_SECRET_KEY": credentials.STRIPE_SECRET_KEY,
        "STRIPE_BASE_URL": shop.sandbox.stripe_base_url,
    }


async def everything(shop: Shop) -> list[Any]:
    client = shop.client.v1
    found: list[Any] = []
    for kind in (client.billing.meters, client.products, client.prices):
        found += (await kind.list_async()).data
    return sorted(str(one) for one in found)


async def test_what_is_missing_is_made_once(shop: Shop, database_url: str) -> None:
    env = environment(shop, database_url) | {"BILLING__METER_EVENT_NAME": "other_micro_usd"}
    before = await everything(shop)
    shown = await gateway(env, "stripe", "setup", "--dry-run")
    assert (shown.status, shown.error) == (0, "")
    assert [line for line in shown.out.splitlines() if line.startswith("+")] == [
        "+ meter other_micro_usd: missing", "+ product other_micro_usd: missing", "+ price other_micro_usd: missing",
    ]  # fmt: skip
    assert "Nothing was changed" in shown.out
    assert await everything(shop) == before
    made = json.loads((await gateway(env, "stripe", "setup", "--json")).out)
    assert made["made"] == ["meter other_micro_usd", "product other_micro_usd", "price other_micro_usd"]
    price = await shop.client.v1.prices.retrieve_async(made["price"])
    assert (price.unit_amount_decimal, price.lookup_key, price.product) == (CENTS, "other_micro_usd", "other_micro_usd")
    assert price.recurring is not None
    assert (price.recurring.meter, price.recurring.usage_type) == (made["meter"], "metered")
    after = await everything(shop)
    again = await gateway(env, "stripe", "setup")
    assert "Nothing to do." in again.out
    assert "grace period 72 hours" in again.out
    assert await everything(shop) == after


async def test_a_price_that_differs_is_replaced_under_its_lookup_key(shop: Shop, billing: Billing) -> None:
    meter = shop.price.recurring.meter
    wrong: Any = {
        "currency": "usd", "unit_amount_decimal": "0.0002", "product_data": {"name": "x"}, "lookup_key": "m1",
        "recurring": {"interval": "month", "usage_type": "metered", "meter": meter},
    }  # fmt: skip
    old = await shop.client.v1.prices.create_async(wrong)
    seen = await prepare(billing, "m1", dry_run=True)
    assert [(step.what, step.state) for step in seen.steps][2] == ("price m1", "differs")
    assert seen.steps[2].details[0] == "unit_amount_decimal: 0.0002 → 0.0001"
    done = await prepare(billing, "m1", dry_run=False)
    assert done.price_id not in (None, old.id)
    by_key: Any = {"lookup_keys": ["m1"]}
    assert [one.id for one in (await shop.client.v1.prices.list_async(by_key)).data] == [done.price_id]
    assert (await prepare(billing, "m1", dry_run=False)).made == ()


async def test_a_meter_that_would_count_wrongly_stops_it(shop: Shop, billing: Billing) -> None:
    given: Any = {"display_name": "x", "event_name": "last_one", "default_aggregation": {"formula": "last"}}
    await shop.client.v1.billing.meters.create_async(given)
    before = await everything(shop)
    with pytest.raises(ConfigError, match="must be 'sum'"):
        await prepare(billing, "last_one", dry_run=False)
    assert await everything(shop) == before


async def test_sync_by_command(shop: Shop, database_url: str, pool: Pool) -> None:
    await shop.subscribe()
    await pool.execute(
        "insert into webhook_inbox (source, event_id, event_type, body, attempts) values ('stripe', 'e', 'x', '{}', 20)"
    )
    done = await gateway(environment(shop, database_url), "stripe", "sync", "--json")
    assert (done.status, done.error) == (0, "")
    assert json.loads(done.out) == {"subscriptions": 1, "invoices": 0, "credit_grants": 0, "retried": 1}
    assert await pool.fetchval("select count(*) from stripe_subscriptions") == 1
    event = await pool.fetchrow("select * from admin_events where phase = 'done'")
    assert event is not None
    assert (event["subject"], event["verb"]) == ("stripe", "sync")
