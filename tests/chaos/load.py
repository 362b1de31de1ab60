"""Live load: clients of two users that call without a pause, some leaving in the middle. Counts what they saw."""

import asyncio
import json
import time
from collections import Counter
from random import Random
from typing import Final

import aiohttp

from tests.chaos.deployment import Deployment
from tests.chaos.excuses import Excuses
from tests.proxy.test_thousand import mixed

LEAVES: Final = 0.1
CALL_S: Final = 60.0
AFTER_ERROR_S: Final = 0.3


class Load:
    """Runs until `stop`."""

    def __init__(self, deployment: Deployment, seed: int, clients: int, excuses: Excuses) -> None:
        self._deployment: Final = deployment
        self._excuses: Final = excuses
        self._dice: Final = Random(seed)
        self._clients: Final = clients
        self.seen: Final[Counter[str]] = Counter()
        """Answers by status and code, and errors by kind."""
        self.unexplained: Final[list[str]] = []
        """Errors that no fault excuses, and the seconds of the run in which their calls began and ended."""
        self._begun_s: Final = time.monotonic()
        self._stop: Final = asyncio.Event()

    def stop(self) -> None:
        """No new calls; those that run come to their end."""
        self._stop.set()

    async def run(self) -> None:
        """Every client until `stop`."""
        timeout = aiohttp.ClientTimeout(total=CALL_S)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
            keys = (self._deployment.stack.key, self._deployment.second)
            async with asyncio.TaskGroup() as clients:
                for number in range(self._clients):
                    dice = Random(self._dice.random())
                    clients.create_task(self._client(session, keys[number % 2], dice))

    async def _client(self, session: aiohttp.ClientSession, key: str, dice: Random) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        while not self._stop.is_set():
            path, body = mixed(dice.randrange(1 << 30), dice)
            begun_s = time.monotonic()
            try:
                async with session.post(self._deployment.stack.base_url + path, json=body, headers=headers) as answer:
                    if dice.random() < LEAVES:
                        await answer.content.readany()
                        answer.close()
                        self.seen["left"] += 1
                        continue
                    data = await answer.read()
            except aiohttp.ClientConnectorError:
                wrong, seen = "refused", "refused"
            except (aiohttp.ClientError, ConnectionError) as error:
                wrong, seen = "cut", f"cut: {type(error).__name__}"
            except TimeoutError:
                wrong, seen = "timeout", "timeout"
            else:
                wrong = "" if answer.status == 200 else str(answer.status)
                seen = "200" if not wrong else f"{wrong} {json.loads(data)['error']['code']}"
            self.seen[seen] += 1
            if wrong:
                if not self._excuses.explain(wrong, begun_s):
                    began, ended = begun_s - self._begun_s, time.monotonic() - self._begun_s
                    self.unexplained.append(f"{seen} {path} {began:.1f}-{ended:.1f} s")
                await asyncio.sleep(AFTER_ERROR_S)
