"""Live load: clients of two users that call without a pause, some leaving in the middle. Counts what they saw."""

import asyncio
import json
import time
from collections import Counter
from contextlib import AbstractAsyncContextManager
from random import Random
from typing import Final

import aiohttp

from gateway.http.framing import EVENT_ID
from tests.chaos.deployment import Deployment
from tests.chaos.excuses import Excuses
from tests.proxy.test_thousand import mixed

LEAVES: Final = 0.1
CALL_S: Final = 60.0
AFTER_ERROR_S: Final = 0.3
TRIES: Final = 3
"""Of a call: OpenAI's SDKs try twice more."""


class Load:
    """Runs until `stop`."""

    def __init__(self, deployment: Deployment, seed: int, clients: int, excuses: Excuses) -> None:
        self._deployment: Final = deployment
        self._excuses: Final = excuses
        self._dice: Final = Random(seed)
        self._clients: Final = clients
        self.seen: Final[Counter[str]] = Counter()
        """Answers by status and code, and errors by kind."""
        self.answered: Final[set[str]] = set()
        """Events whose whole answers have arrived."""
        self.given_up = 0
        """Calls that failed at every try."""
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
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session,
            asyncio.TaskGroup() as clients,
        ):
            for number in range(self._clients):
                clients.create_task(self._client(session, number, Random(self._dice.random())))

    async def _client(self, session: aiohttp.ClientSession, number: int, dice: Random) -> None:
        """As an SDK: an error is tried again, on the next host where there are several."""
        hosts = [host.stack.base_url for host in self._deployment.hosts]
        headers = {"Authorization": f"Bearer {(self._deployment.stack.key, self._deployment.second)[number % 2]}"}
        home = number // 2
        while not self._stop.is_set():
            path, body = mixed(dice.randrange(1 << 30), dice)
            leaves = dice.random() < LEAVES
            for tried in range(TRIES):
                request = session.post(hosts[(home + tried) % len(hosts)] + path, json=body, headers=headers)
                if await self._succeeds(request, path, leaves):
                    break
                await asyncio.sleep(AFTER_ERROR_S)
            else:
                self.given_up += 1

    async def _succeeds(
        self, request: AbstractAsyncContextManager[aiohttp.ClientResponse], path: str, leaves: bool
    ) -> bool:
        """One try."""
        begun_s = time.monotonic()
        try:
            async with request as answer:
                if leaves:
                    await answer.content.readany()
                    answer.close()
                    self.seen["left"] += 1
                    return True
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
            if not wrong:
                self.answered.add(answer.headers[EVENT_ID])
        self.seen[seen] += 1
        if wrong and not self._excuses.explain(wrong, begun_s):
            began, ended = begun_s - self._begun_s, time.monotonic() - self._begun_s
            self.unexplained.append(f"{seen} {path} {began:.1f}-{ended:.1f} s")
        return not wrong
