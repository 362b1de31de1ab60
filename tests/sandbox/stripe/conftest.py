"""The stand-in that tests of Stripe's billing begin with."""

from collections.abc import AsyncIterator

import pytest
import stripe

from tests.support.stripe_shop import Shop, open_shop


@pytest.fixture
async def shop(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shop]:
    monkeypatch.setattr(stripe, "enable_telemetry", False)
    async with open_shop() as made:
        yield made
