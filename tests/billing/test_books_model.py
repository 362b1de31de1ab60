"""Whatever happens in ninety days, each customer's amounts are in exactly one place, and Stripe's are on an invoice."""

import os

import pytest

from gateway.billing.stripe import Billing
from gateway.config.settings import Settings
from gateway.ledger.store import Ledger
from gateway.sandbox import credentials
from gateway.stores.postgres import Pool
from tests.billing.books_model import World
from tests.support.stripe_shop import open_shop

SEEDS = range(int(os.environ.get("BOOKS_SEEDS", "4")))
"""How many runs of ninety days; `make test-books` has 300."""
ENDED = {"sent", "duplicate", "superseded", "settled"}
"""States in which no event waits for anybody."""


async def play(seed: int, days: int, pool: Pool, ledger: Ledger, database_url: str) -> World:
    """One run, and that its amounts are whole."""
    async with open_shop() as shop:
        env = {
            "DATABASE_URL": database_url,
            "STRIPE_SECRET_KEY": credentials.STRIPE_SECRET_KEY,
            "STRIPE_BASE_URL": shop.sandbox.stripe_base_url,
        }
        billing = Billing(credentials.STRIPE_SECRET_KEY, base_url=shop.sandbox.stripe_base_url)
        try:
            world = World(seed, pool, ledger, shop, billing, Settings.of(env))
            await world.run(days)
            outcomes = await world.outcomes()
        finally:
            await billing.close()
    for customer, outcome in outcomes.items():
        said = (seed, customer, outcome)
        delivered = outcome.by_state["sent"] + outcome.by_state["duplicate"]
        assert outcome.at_stripe == delivered, said
        assert {state for state, nano in outcome.by_state.items() if nano} <= ENDED, said
        # An accrued window of less than a micro-USD makes no event that would tell whose it was.
        assert abs(outcome.unexplained()) < (1000 if outcome.accrued else 1), said
    assert sum(outcome.unexplained() for outcome in outcomes.values()) == await world.accrued_without_event(), seed
    return world


async def test_a_month(pool: Pool, ledger: Ledger, database_url: str) -> None:
    """Over one month's end, with a little of everything."""
    world = await play(1000, 33, pool, ledger, database_url)
    for thing in ("rows", "late", "corrected", "relinked", "credit", "trouble", "outage", "killed"):
        assert world.done[thing], thing


@pytest.mark.long
@pytest.mark.parametrize("seed", SEEDS)
async def test_ninety_days(seed: int, pool: Pool, ledger: Ledger, database_url: str) -> None:
    await play(seed, 90, pool, ledger, database_url)
