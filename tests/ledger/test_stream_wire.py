"""A connection to Redis that breaks is named as one, on the loop that the product runs on."""

import asyncio
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import uvloop

from gateway.embedded import Embedded
from gateway.kit.errors import DependencyDown
from gateway.ledger.stream import Buffer
from gateway.stores.redis import open_redis
from tests.chaos.tcp import KINDS, Kind, wires
from tests.support.patience import ENDS_S

FAST_S = 0.5
STREAM = "broken-wire"


@pytest.mark.parametrize("kind", KINDS)
def test_every_failure_is_an_outage_of_redis_that_ends(embedded: Embedded, kind: Kind) -> None:
    with wires() as laid, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        link = laid.link(Path(unquote(urlsplit(embedded.redis_url).path)))

        async def is_appended(buffer: Buffer) -> bool:
            failed = await asyncio.gather(buffer.append([("1", b"e")]), return_exceptions=True)
            if isinstance(failed[0], list):
                return True
            assert isinstance(failed[0], DependencyDown)
            assert failed[0].what == "redis"
            return False

        async def break_and_mend() -> None:
            async with open_redis(f"redis://127.0.0.1:{link.port}/0", timeout_s=FAST_S) as redis:
                buffer = Buffer(redis, stream=STREAM)
                async with asyncio.timeout(ENDS_S):
                    while not await is_appended(buffer):
                        pass  # a busy machine may need more than FAST_S
                    laid.set(link, kind, delay_s=2 * FAST_S)
                    await asyncio.sleep(0.05)
                    await is_appended(buffer)
                    laid.set(link, "pass")
                    while not await is_appended(buffer):
                        pass  # connections that are broken go one by one
                    await redis.delete(STREAM)

        runner.run(break_and_mend())
