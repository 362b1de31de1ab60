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

FAST_S = 0.5
STREAM = "broken-wire"


@pytest.mark.parametrize("kind", KINDS)
def test_every_failure_is_an_outage_of_redis_that_ends(embedded: Embedded, kind: Kind) -> None:
    with wires() as laid, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        link = laid.link(Path(unquote(urlsplit(embedded.redis_url).path)))

        async def appends() -> list[str]:
            heard = []
            async with open_redis(f"redis://127.0.0.1:{link.port}/0", timeout_s=FAST_S) as redis:
                buffer = Buffer(redis, stream=STREAM)
                for now in ("pass", kind, "pass", "pass"):
                    laid.set(link, now, delay_s=2 * FAST_S)
                    await asyncio.sleep(0.05)
                    try:
                        await buffer.append([("1", b"e")])
                        heard.append("appended")
                    except DependencyDown as down:
                        heard.append(down.what)
                await redis.delete(STREAM)
            return heard

        heard = runner.run(appends())
    assert heard[0] == heard[-1] == "appended"
    assert set(heard) <= {"appended", "redis"}
