"""Live load: clients of two users that call without a pause, some leaving in the middle. Counts what they saw."""

import asyncio
from collections import Counter
from random import Random
from typing import Final

import aiohttp

from tests.chaos.house import House
from tests.flows.test_thousand import mixed

LEAVES: Final = 0.1
CALL_S: Final = 60.0
AFTER_ERROR_S: Final = 0.1


class Load:
    """Runs until `stop`."""

    def __init__(self, house: House, seed: int, clients: int) -> None:
        self._house: Final = house
        self._dice: Final = Random(seed)
        self._clients: Final = clients
        self.seen: Final[Counter[str]] = Counter()
        """Answers by status, and errors by kind."""
        self._stop: Final = asyncio.Event()

    def stop(self) -> None:
        """No new calls; those that run come to their end."""
        self._stop.set()

    async def run(self) -> None:
        """Every client until `stop`."""
        timeout = aiohttp.ClientTimeout(total=CALL_S)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
            keys = (self._house.stack.key, self._house.second)
            async with asyncio.TaskGroup() as clients:
                for number in range(self._clients):
                    dice = Random(self._dice.random())
                    clients.create_task(self._client(session, keys[number % 2], dice))

    async def _client(self, session: aiohttp.ClientSession, key: str, dice: Random) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        while not self._stop.is_set():
            path, body = mixed(dice.randrange(1 << 30), dice)
            try:
                async with session.post(self._house.stack.base_url + path, json=body, headers=headers) as answer:
                    if dice.random() < LEAVES:
                        await answer.content.readany()
                        answer.close()
                        self.seen["left"] += 1
                        continue
                    await answer.read()
                    self.seen[str(answer.status)] += 1
                    failed = answer.status >= 500
            except (aiohttp.ClientError, TimeoutError) as error:
                self.seen[type(error).__name__] += 1
                failed = True
            if failed:
                await asyncio.sleep(AFTER_ERROR_S)
