"""Stripe for tests of billing, and our client of it: the stand-in, which bills under a moved clock, or a server that
counts meter events by itself and fails as it is told."""

from collections.abc import AsyncIterator

import pytest

from gateway.billing.stripe import Billing
from gateway.sandbox import credentials
from tests.billing.stripe_truth import StripeTruth
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


@pytest.fixture
async def truth() -> AsyncIterator[StripeTruth]:
    async with StripeTruth() as server:
        yield server


@pytest.fixture
async def stripe(truth: StripeTruth) -> AsyncIterator[Billing]:
    billing = Billing("sk_test_1", base_url=truth.url)
    yield billing
    await billing.close()
