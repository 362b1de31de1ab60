"""A close that is killed at any point leaves nothing that the next one does not put right."""

import asyncio
import signal
import sys
from hashlib import sha256
from random import Random

import pytest

from gateway.close.manifest import MANIFEST
from gateway.close.verify import verify
from tests.close.killed_child import STAGES
from tests.close.site import ACCEPT, Site
from tests.support.environment import clean_environment
from tests.support.killed import wait_for_rollback
from tests.support.source import TOP


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
    await wait_for_rollback(site.pool)


async def kill_at(site: Site, stage: str) -> None:
    """A process of its own, killed when it has reached the stage."""
    command = (sys.executable, "-m", "tests.close.killed_child", stage, "close", "2026-09", *ACCEPT)
    process = await asyncio.create_subprocess_exec(*command, env=clean_environment() | site.env, cwd=TOP)
    assert await process.wait() == -signal.SIGKILL
    await wait_for_rollback(site.pool)


async def close_after(site: Site) -> None:
    """The next close ends in one closed month with one pack, which is the one that the month names."""
    again = await site.close("2026-09", *ACCEPT)
    assert "is closed, version 1" in again.out or "closed already: version 1" in again.error, again
    (folder,) = (site.data / "closes").iterdir()
    assert (folder.name, verify(folder).problems) == ("2026-09-v1", ())
    (period,) = await site.pool.fetch("select version, state, pack_digest from periods")
    digest = sha256((folder / MANIFEST).read_bytes()).hexdigest()
    assert tuple(period) == (1, "closed", digest)


@pytest.mark.parametrize("stage", ["its digest is noted", "it has its name"])
async def test_a_close_that_is_killed_about_when_its_pack_gets_its_name(site: Site, stage: str) -> None:
    await kill_at(site, stage)
    assert await site.pool.fetchval("select state from periods") == "closing"
    await close_after(site)


@pytest.mark.long
@pytest.mark.parametrize("stage", STAGES)
async def test_a_close_that_is_killed_at_each_stage(site: Site, stage: str) -> None:
    await kill_at(site, stage)
    assert await site.pool.fetchval("select state from periods") == ("closed" if stage == "closed" else "closing")
    await close_after(site)


@pytest.mark.long
async def test_closes_that_are_killed_one_after_another(site: Site) -> None:
    """Each begins with what the one before has left, the last stages first."""
    for stage in reversed([stage for stage in STAGES if stage != "closed"]):
        await kill_at(site, stage)
    await close_after(site)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(6))
async def test_a_killed_close_is_put_right_by_the_next(site: Site, seed: int) -> None:
    await start_and_kill(site, seed)
    await close_after(site)
