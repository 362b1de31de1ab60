"""What tests of recounts share."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from gateway.accounts.store import Accounts
from gateway.ledger.store import Ledger
from gateway.limits.counters import Limits
from gateway.stores.postgres import Pool
from gateway.stores.redis import open_redis
from tests.limits.budget_counter import BudgetCounter


@pytest.fixture
async def redis(redis_url: str) -> "AsyncIterator[Redis]":
    client = open_redis(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
async def counter(redis: "Redis", ledger: Ledger, pool: Pool) -> BudgetCounter:
    return BudgetCounter(
        Limits(redis, hold_s=600), ledger, pool, await Accounts(ledger.pool).create_user("owner@example.com")
    )
