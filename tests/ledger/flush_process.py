"""One writer as a process of its own, which kills itself at a named place. Run by test_flush.py, never in production.

Arguments: database URL, Redis URL, name of the failpoint (or `none`), how many times it is passed before, consumer.
"""

import asyncio
import os
import signal
import sys
import time
from datetime import UTC, datetime

from gateway.ledger.flush import Flush
from gateway.ledger.store import Ledger
from gateway.ledger.stream import Buffer
from gateway.stores.postgres import open_pool
from gateway.stores.redis import open_redis
from tests.conftest import METER, WINDOW_S


async def main(database_url: str, redis_url: str, failpoint: str, passes: str, consumer: str) -> None:
    """Writes until the failpoint; without one, until the stream is empty."""
    left = int(passes)

    def reached(name: str) -> None:
        nonlocal left
        if name == failpoint:
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    pool, redis = await open_pool(database_url), open_redis(redis_url)
    buffer = Buffer(redis, stream="gateway:usage")
    flush = Flush(
        buffer,
        Ledger(pool, meter=METER, window_s=WINDOW_S),
        consumer=consumer,
        batch_rows_max=20,
        interval_s=0.01,
        claim_idle_s=0.0,
        monotonic=time.monotonic,
        now=lambda: datetime.now(UTC),
        failpoint=reached,
    )
    while (await buffer.depth()).entries:
        await flush.step_once(block_ms=50)
    await redis.aclose()
    await pool.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
