"""Applying Stripe's events when processes die, run side by side, or cannot reach PostgreSQL."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest
from aiohttp import test_utils, web

from gateway.billing.stripe import Billing
from gateway.billing.webhooks.inbox import LEASE_S, StripeInbox
from gateway.billing.webhooks.opening import build_stripe_events
from gateway.billing.webhooks.receive import StripeWebhooks
from gateway.kit.errors import DependencyDown
from gateway.stores.postgres import Pool
from gateway.stores.webhook_inbox import WebhookEvent
from tests.billing.test_mirror import kept, told
from tests.billing.test_webhook_receive import signed, snapshot
from tests.support.stripe_shop import Shop
from tests.support.whole_gateway import STRIPE_SECRETS


async def test_an_event_whose_worker_died_is_applied_by_another(shop: Shop, billing: Billing, pool: Pool) -> None:
    customer = (await shop.client.v1.customers.create_async({})).id
    inbox, worker = StripeInbox(pool), build_stripe_events(billing, pool)
    await inbox.store([told("customer.created", {"object": "customer", "id": customer})])
    assert await inbox.lease() is not None  # whoever has it is gone now
    assert await worker.step_once() is False
    left = await pool.fetchval("select extract(epoch from next_attempt_at - now())::float from webhook_inbox")
    assert LEASE_S - 30 < left <= LEASE_S
    await pool.execute("update webhook_inbox set next_attempt_at = now()")
    assert await worker.step_once() is True
    assert [row["id"] for row in await kept(pool, "stripe_customers")] == [customer]
    assert await worker.step_once() is False


async def test_workers_side_by_side_apply_each_event_once(shop: Shop, billing: Billing, pool: Pool) -> None:
    customers = [(await shop.client.v1.customers.create_async({})).id for _ in range(12)]
    events = [told("customer.created", {"object": "customer", "id": each}) for each in customers]
    await StripeInbox(pool).store(events)

    async def work() -> int:
        worker, steps = build_stripe_events(billing, pool), 0
        while await worker.step_once():
            steps += 1
        return steps

    assert sum(await asyncio.gather(work(), work(), work())) == len(events)
    assert sorted(row["id"] for row in await kept(pool, "stripe_customers")) == sorted(customers)


async def test_a_thin_event_may_name_the_account_that_is_ours(shop: Shop, billing: Billing, pool: Pool) -> None:
    customer = (await shop.client.v1.customers.create_async({})).id
    own = shop.sandbox.stripe.account_id
    about: dict[str, Any] = {"object": "customer", "id": customer}
    worker = build_stripe_events(billing, pool)
    await StripeInbox(pool).store([told("customer.updated", about, account="acct_of_somebody_else")])
    assert await worker.step_once()
    assert await kept(pool, "stripe_customers") == []
    await StripeInbox(pool).store([told("customer.updated", about, account=own)])
    assert await worker.step_once()
    assert [row["id"] for row in await kept(pool, "stripe_customers")] == [customer]


class _Away(StripeInbox):
    """PostgreSQL does not answer at first."""

    is_away = True

    async def store(self, events: Sequence[WebhookEvent]) -> set[str]:
        if self.is_away:
            raise DependencyDown("postgres", "no connection")
        return await super().store(events)


async def test_nothing_is_acknowledged_while_postgresql_is_away(pool: Pool) -> None:
    """The front answers 503 to DependencyDown, and Stripe tries again."""
    store, body = _Away(pool), snapshot("evt_away")

    async def read_body(_request: web.BaseRequest, _most: int) -> bytes:
        return body

    webhooks = StripeWebhooks(store, STRIPE_SECRETS, read_body=read_body, unix_s=time.time)
    request = test_utils.make_mocked_request("POST", "/webhooks/stripe", headers=signed(body))
    for _ in range(2):
        with pytest.raises(DependencyDown):
            await webhooks.handle(request)
    assert await pool.fetchval("select count(*) from webhook_inbox") == 0
    store.is_away = False
    assert (await webhooks.handle(request)).status == 200
    assert await pool.fetchval("select count(*) from webhook_inbox") == 1
