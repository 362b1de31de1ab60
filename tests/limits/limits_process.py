"""A proxy's limits in a process of its own, for tests with several: calls under one budget, one rate and few slots.

Arguments: Redis URL, seed, budget in nano-USD, slots, requests a minute. Says `ready`, waits for a line, then
claims, waits and settles, many at a time, and prints a JSON object: calls let in, nano-USD settled by event id. A call
that only found no slot is tried again, so that how much is let in does not depend on how fast anything runs.
"""

import asyncio
import json
import sys
from datetime import UTC, datetime
from random import Random

from gateway.limits.budgets import Budget, Window
from gateway.limits.claims import Claim, Hold, RateClaim, Slots
from gateway.limits.counters import Limits
from gateway.stores.redis import open_redis

AT = datetime(2026, 11, 23, tzinfo=UTC)
BUDGET, SLOTS, RATE = "limit:b:shared", "limit:k:shared:running", "limit:k:shared:requests"
CALLS = 300
TOGETHER = 20
WORST_MAX = 50


async def main(url: str, seed: int, cap: int, slots: int, rate: int) -> None:
    dice, redis = Random(seed), open_redis(url)
    limits = Limits(redis, hold_s=600)
    budget = Budget(id="shared", user_id="u", limit_nano=cap, period="total", hard=True, since=AT)
    settled: dict[str, int] = {}
    let_in = 0

    async def one(number: int, worst: int, pause_s: float) -> None:
        nonlocal let_in
        event = f"{seed}-{number}"
        claims: list[Claim] = [
            Hold(BUDGET, Window(budget, AT, None), worst),
            Slots(SLOTS, slots),
            RateClaim(RATE, "requests", rate, 60, 1),
        ]
        while any(refused := [taken.refused for taken in await limits.reserve(event, claims)]):
            if refused != [False, True, False]:
                return
            await asyncio.sleep(pause_s)
        let_in += 1
        await asyncio.sleep(pause_s)
        cost = dice.randint(0, worst)
        await limits.settle(event, claims, tokens=0, cost=cost, billed=cost)
        settled[event] = cost

    async def some(first: int) -> None:
        for number in range(first, CALLS, TOGETHER):
            await one(number, dice.randint(1, WORST_MAX), dice.random() * 0.004)

    print("ready", flush=True)
    sys.stdin.readline()  # so that all of them begin together
    await asyncio.gather(*(some(first) for first in range(TOGETHER)))
    await redis.aclose()
    print(json.dumps({"let_in": let_in, "settled": settled}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *(int(argument) for argument in sys.argv[2:])))
