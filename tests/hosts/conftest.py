"""A host over real stores."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.ledger.store import Ledger
from gateway.ledger.stream import Buffer
from gateway.stores.postgres import Pool
from tests.hosts.scene import HostScene, host_scene


@pytest.fixture
async def scene(tmp_path: Path, redis_url: str, buffer: Buffer, ledger: Ledger, pool: Pool) -> AsyncIterator[HostScene]:
    async with host_scene(tmp_path, redis_url, buffer, ledger, pool) as made:
        yield made
