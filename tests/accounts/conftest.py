"""An office over the test's database."""

import pytest

from gateway.ledger.store import Ledger
from gateway.stores.postgres import Pool
from tests.accounts.office import Office


@pytest.fixture
def office(ledger: Ledger, pool: Pool, database_url: str) -> Office:
    return Office(ledger, pool, database_url)
