"""Whatever happens in ninety days, each customer's amounts are in exactly one place, and Stripe's are on an invoice."""

import os
import random
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from gateway.billing.stripe import Billing
from gateway.config.settings import Settings
from gateway.sandbox import credentials
from gateway.stores.postgres import Pool
from tests.billing.books_checks import find_unbalanced, find_wrong
from tests.billing.books_model import World
from tests.billing.books_stripe import Death, commands_share, mortal_pool
from tests.conftest import admin
from tests.support.servers import on_database
from tests.support.stripe_shop import open_shop

SEEDS = range(int(os.environ.get("BOOKS_SEEDS", "4")))
"""How many runs of ninety days; `make test-books` has 300."""


@pytest.fixture
async def database_url(postgres_dsn: str, moved_template: str) -> AsyncIterator[str]:
    """A clone of it, in place of the database of other tests."""
    name = f"books_{uuid4().hex}"
    await admin(postgres_dsn, f"create database {name} template {moved_template} strategy file_copy")
    yield on_database(postgres_dsn, name)
    await admin(postgres_dsn, f"drop database {name} with (force)")


async def play(seed: int, days: int, pool: Pool, database_url: str) -> tuple[World, list[str]]:
    """One run, and what is wrong after it."""
    death = Death()
    worker_pool = await mortal_pool(database_url, death)
    async with open_shop() as shop:
        env = {
            "DATABASE_URL": database_url,
            "STRIPE_SECRET_KEY": credentials.STRIPE_SECRET_KEY,
            "STRIPE_BASE_URL": shop.sandbox.stripe_base_url,
            "BILLING__LATE": random.Random(seed).choice(("file", "file", "hold")),
        }
        billing = Billing(credentials.STRIPE_SECRET_KEY, base_url=shop.sandbox.stripe_base_url)
        try:
            world = World(seed, pool, worker_pool, death, shop, billing, Settings.of(env))
            with commands_share(pool):
                await world.run(days, find_unbalanced)
            return world, world.wrong + await find_wrong(world)
        finally:
            await billing.close()
            await worker_pool.close()


async def test_a_month(pool: Pool, database_url: str) -> None:
    """Over one month's end, with a little of everything."""
    world, wrong = await play(1001, 33, pool, database_url)
    assert not wrong, "\n".join(wrong)
    for thing in (
        "rows",
        "late",
        "corrected",
        "linked",
        "credit",
        "plan",
        "trouble",
        "outage",
        "lost",
        "killed",
        "marks",
    ):
        assert world.done[thing], thing


@pytest.mark.long
@pytest.mark.parametrize("seed", SEEDS)
async def test_ninety_days(seed: int, pool: Pool, database_url: str) -> None:
    _, wrong = await play(seed, 90, pool, database_url)
    assert not wrong, "\n".join(wrong)
