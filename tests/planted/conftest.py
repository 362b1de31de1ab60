"""The fixtures of the tests that are run with a bug planted."""

import pytest

from gateway.billing.outbox import Outbox
from gateway.stores.postgres import Pool


@pytest.fixture
def outbox(pool: Pool) -> Outbox:
    return Outbox(pool)
