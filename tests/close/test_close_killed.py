"""A close that is killed at any point leaves nothing that the next one does not put right."""

import asyncio
import sys
from pathlib import Path
from random import Random

import pytest

from gateway.close.verify import verify
from tests.close.test_close import ACCEPT, Site, site
from tests.support.environment import clean_environment

__all__ = ["site"]


async def start_and_kill(site: Site, seed: int) -> None:
    """Kills the process a moment after it has noted that the month is being closed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "close", "2026-09", *ACCEPT, env=clean_environment() | site.env
    )
    while process.returncode is None:
        state = await site.pool.fetchval("select state from periods order by version desc limit 1")
        if state in ("closing", "closed"):
            await asyncio.sleep(Random(seed).choice((0, 0.005, 0.02, 0.05)))
            break
        await asyncio.sleep(0.005)
    if process.returncode is None:
        process.kill()
    await process.wait()


@pytest.mark.long
@pytest.mark.parametrize("seed", range(6))
async def test_a_killed_close_is_put_right_by_the_next(site: Site, seed: int) -> None:
    await start_and_kill(site, seed)
    again = await site.close("2026-09", *ACCEPT)
    assert "is closed, version 1" in again.out or "closed already: version 1" in again.error
    closes = site.data / "closes"
    assert [path.name for path in Path(closes).iterdir()] == ["2026-09-v1"]
    assert verify(closes / "2026-09-v1").is_whole
    assert await site.pool.fetchval("select state from periods") == "closed"
