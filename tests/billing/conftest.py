"""A stand-in of Stripe that bills under a moved clock, and our client of it."""

from collections.abc import AsyncIterator

import pytest

from gateway.billing.stripe import Billing
from gateway.sandbox import credentials
from tests.support.stripe_shop import Shop, open_shop


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with open_shop() as made:
        yield made


@pytest.fixture
async def billing(shop: Shop) -> AsyncIterator[Billing]:
    made = Billing(credentials.STRIPE_SECRET_KEY, base_url=shop.sandbox.stripe_base_url)
    yield made
    await made.close()
