"""Failovers of two real servers that replicate: whoever works on them goes on within two seconds of the address.

`test_wrong_redis.py` and `test_wrong_postgres.py` provoke each wrong answer by itself, and cheaper.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random, uniform

import pytest

from gateway.kit.loops import Loops
from gateway.ledger.rows import LedgerEntry
from gateway.ledger.store import Ledger
from gateway.ledger.stream import Buffer
from gateway.stores.migrator import migrate
from gateway.stores.postgres import open_pool
from gateway.stores.redis import open_redis
from tests.chaos.tcp import Link
from tests.conftest import METER, WINDOW_S
from tests.support.events import call, linked, new_id
from tests.support.patience import until, until_now
from tests.support.postgres_pair import ask, postgres_pair
from tests.support.redis_pair import redis_pair

RANDOM = Random(16)
HEALS_S = 2.0
ROWS = "select count(*) from public.openai_usage"
LATE_S = 7.0
"""For so long the address leads to the server that was demoted: a loop waits as long as it ever does by then."""


async def heals_after(
    step: Callable[[], Awaitable[object]], fail_over: Callable[[], None], link: Link, new: tuple[str, int] | Path
) -> float:
    """Seconds from the moment at which the address leads to the right server until a loop's pass succeeds again."""
    passed_s: list[float] = []

    async def turn() -> None:
        await step()
        passed_s.append(time.monotonic())

    loops = Loops(uniform=uniform)
    loops.every("work", turn, every_s=0.05)
    async with loops:
        await until(lambda: passed_s)
        await asyncio.to_thread(fail_over)
        await until(lambda: loops.waiting_on)
        await asyncio.sleep(LATE_S)
        assert loops.waiting_on  # nobody was cut off, and the address is late
        passed_s.clear()
        link.lead_to(new)
        begun_s = time.monotonic()
        await until(lambda: passed_s)
    return passed_s[0] - begun_s


@pytest.mark.long
async def test_a_master_and_its_replica_change_places(tmp_path: Path) -> None:
    with redis_pair(tmp_path) as pair:
        async with Link(pair.first.address).running() as link, open_redis(f"redis://127.0.0.1:{link.port}/0") as redis:
            buffer = Buffer(redis, stream="usage")
            new = pair.second.address
            took_s = await heals_after(lambda: buffer.append([("1", b"e")]), pair.switch_over, link, new)
            assert pair.master is pair.second
    assert took_s < HEALS_S


@pytest.mark.long
async def test_a_primary_that_only_reads_and_a_standby_that_was_promoted(tmp_path: Path) -> None:
    tmp_path.chmod(0o711)
    with postgres_pair(tmp_path) as pair:
        await migrate(pair.primary.url)
        async with Link(pair.primary.socket).running() as link:
            pool = await open_pool(pair.url_through(link), connections_max=3)
            ledger = Ledger(pool, meter=METER, window_s=WINDOW_S)
            user, key = await linked(ledger, "u")

            def fail_over() -> None:
                pair.demote(pair.primary)
                until_now(pair.has_caught_up)
                pair.promote()

            async def write() -> None:
                await ledger.insert_batch([LedgerEntry.of(call(user, new_id(RANDOM), api_key_id=key))])

            took_s = await heals_after(write, fail_over, link, pair.standby.socket)
            await pool.close()
        before, after = [await asyncio.to_thread(ask, each, ROWS) for each in (pair.primary, pair.standby)]
    assert after > before > 0
    assert took_s < HEALS_S
