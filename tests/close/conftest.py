"""What tests of closing begin with."""

from pathlib import Path

import pytest

from gateway.ledger.store import Ledger
from gateway.ledger.stream import Buffer
from gateway.stores.postgres import Pool
from tests.close.site import Site


@pytest.fixture
async def site(pool: Pool, ledger: Ledger, database_url: str, redis_url: str, buffer: Buffer, tmp_path: Path) -> Site:
    env = {
        "DATABASE_URL": database_url, "REDIS_URL": redis_url, "GATEWAY_DATA_DIR": str(tmp_path / "data"),
        "BILLING__MARKUP": "1.2", "GATEWAY_OPERATOR": "Ada", "STRIPE_SECRET_KEY": "sk_test_none",
        "STRIPE_BASE_URL": "http://127.0.0.1:9",  # nobody answers
    }  # fmt: skip
    made = Site(pool, ledger, env, tmp_path / "data")
    await made.fill()
    return made
