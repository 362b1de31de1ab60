"""The random killer: every fault comes of one seed, so that a run can be made again."""

import asyncio
import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random
from typing import Final

from gateway.stores.redis import open_redis
from tests.chaos.deployment import Deployment, since
from tests.chaos.excuses import Excuses
from tests.chaos.tcp import KINDS, Kind

WEIGHTS: Final[dict[str, float]] = {
    "kill proxy": 8,
    "kill keeper": 4,
    "kill worker": 4,
    "kill extra": 3,
    "kill parent": 0.5,
    "stop proxy": 3,
    "stop keeper": 2,
    "stop worker": 2,
    "stop extra": 2,
    "flush valkey": 4,
    "kill valkey": 3,
    "hang valkey": 2,
    "kill postgres": 2,
    "hang postgres": 2,
    "wire openai": 2,
    "wire postgres": 2,
    "wire valkey": 2,
}
"""Faults, and how often each is drawn."""
WEIGHTS_OF_PAIRS: Final[dict[str, float]] = WEIGHTS | {
    "failover valkey": 4,
    "failover postgres": 4,
    "kill host": 1,
    "takeover host": 3,
}
"""Where several hosts share pairs of stores. Clients may not notice the last one: it excuses nothing."""
UNTIL_SERVING: Final = ("kill proxy", "kill parent", "kill host")
"""They last until connections are taken again: a parent's patience grows with each kill."""
PAUSE_S: Final = (0.2, 1.4)
"""Seconds between two faults."""
ENOUGH_S: Final = 300.0
START_S: Final = 15.0
HANG_S: Final = (0.5, 4.0)
HANGS: Final = ("stop", "hang", "wire")
AWAY_S: Final = (0.0, 3.0)
"""Seconds for which a killed store stays away."""
CUT_BYTES_MAX: Final = 20_000
DELAY_S_MAX: Final = 0.4


class Killer:
    """Draws faults until told to stop; a fault that heals later does so on its own."""

    def __init__(self, deployment: Deployment, seed: int, excuses: Excuses, say: Callable[[str], None]) -> None:
        self._deployment: Final = deployment
        self._excuses: Final = excuses
        self._dice: Final = Random(seed)
        self._say: Final = say
        self._begun: Final = time.monotonic()
        self._weights: Final = WEIGHTS if len(deployment.hosts) == 1 else WEIGHTS_OF_PAIRS
        self._healing: Final[list[asyncio.Task[None]]] = []
        self._busy: Final[set[str]] = set()
        """Stores and wires that are away or hang already."""
        self.faults: Final[Counter[str]] = Counter()

    async def run(self, seconds: float, answered: Callable[[], int], calls_min: int, faults_min: int) -> None:
        """Faults for so long, and on a busy machine until there are so many of both; then all of them healed."""
        until = time.monotonic() + seconds
        at_last = until + ENOUGH_S

        def is_enough() -> bool:
            return answered() >= calls_min and self.faults.total() >= faults_min

        while (now := time.monotonic()) < until or (now < at_last and not is_enough()):
            before = answered()
            await self._one()
            await asyncio.sleep(self._dice.uniform(*PAUSE_S))
            await self._until_one_is(answered, before)
        await asyncio.gather(*self._healing)

    async def _until_one_is(self, answered: Callable[[], int], before: int) -> None:
        """A process that is killed before it has started proves nothing: on a busy machine that takes a while."""
        until = time.monotonic() + START_S
        while answered() == before and time.monotonic() < until:
            await asyncio.sleep(0.1)

    async def _one(self) -> None:
        # The same draws for every fault, whatever the world is like: the seed alone says what comes.
        name = self._dice.choices(list(self._weights), list(self._weights.values()))[0]
        verb, _, target = name.partition(" ")
        chance, seconds = self._dice.random(), self._dice.uniform(*(HANG_S if verb in HANGS else AWAY_S))
        kind = self._dice.choice(KINDS)
        if (verb if verb == "wire" else "") + target in self._busy:
            return
        if verb == "wire":
            happened = await self._at_wire(target, kind, chance, seconds)
        elif target in self._deployment.stores:
            happened = await self._at_store(verb, target, seconds)
        elif target == "host":
            hosts = self._deployment.hosts
            host = hosts[int(chance * len(hosts))]
            happened = host.kill() if verb == "kill" else host.take_over()
        else:
            happened = self._at_process(verb, self._deployment.pids_of(target), chance, seconds)
        if happened:
            self._excuses.add(name)
            if name in UNTIL_SERVING:
                self._later(name, 0, self._deployment.all_serving)
            said = f"{name} {kind}" if verb == "wire" else name
            self.faults[said] += 1
            self._say(f"{since(self._begun)}  {said}")

    async def _at_wire(self, name: str, kind: Kind, chance: float, seconds: float) -> bool:
        wires, link = self._deployment.wires, await asyncio.to_thread(self._deployment.link, name)
        after_bytes = int(chance * CUT_BYTES_MAX) if kind == "cut" else 0
        wires.set(link, kind, after_bytes=after_bytes, delay_s=chance * DELAY_S_MAX)

        async def repair() -> None:
            wires.set(link, "pass")

        self._later(f"wire {name}", seconds, repair, f"wire{name}")
        return True

    def _at_process(self, verb: str, pids: list[int], chance: float, seconds: float) -> bool:
        if not pids:
            return False
        pid = pids[int(chance * len(pids))]
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL if verb == "kill" else signal.SIGSTOP)
            if verb == "stop":
                self._later("stop", seconds, lambda: _go_on([pid]))
            return True
        return False

    async def _at_store(self, verb: str, name: str, seconds: float) -> bool:
        store = self._deployment.stores[name]
        if verb == "flush":
            async with open_redis(await asyncio.to_thread(lambda: store.url)) as redis:
                await redis.flushall()
            return True
        if not await asyncio.to_thread(store.is_whole):
            return False
        if verb == "hang":
            pids = await asyncio.to_thread(store.pids)
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
            self._later(f"hang {name}", seconds, lambda: _go_on(pids), name)
            return True
        if (verb, name) != ("failover", "valkey"):  # that one is asked for, with both of them running
            await asyncio.to_thread(store.die)
        heal = store.fail_over if verb == "failover" else store.again
        self._later(f"{verb} {name}", seconds, lambda: asyncio.to_thread(heal), name)
        return True

    def _later(self, fault: str, seconds: float, heal: Callable[[], Awaitable[None]], busy: str = "") -> None:
        """Heals it after so many seconds; it lasts until it is healed."""
        self._busy.add(busy)

        async def wait() -> None:
            with self._excuses.lasting(fault):
                await asyncio.sleep(seconds)
                await heal()
            self._busy.discard(busy)

        self._healing.append(asyncio.create_task(wait()))


async def _go_on(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
