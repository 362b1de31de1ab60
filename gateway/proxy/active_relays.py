"""All answers that a process is reading: enforces their time limits, and ends them with the process."""

import asyncio
from collections import Counter
from typing import Final, Protocol

from multidict import CIMultiDictProxy

from gateway.config.settings import UpstreamSettings
from gateway.kit.errors import ApiError
from gateway.proxy.relay_result import RelayResult

WATCH_S: Final = 1.0
"""Seconds between two looks for answers that are beyond their bounds."""


class ActiveRelay(Protocol):
    """An answer that is being read (proxy/relay.py), as far as it is looked after from outside."""

    @property
    def result(self) -> RelayResult: ...
    @property
    def request_headers(self) -> "CIMultiDictProxy[str]": ...
    def check(self, now: float) -> None: ...
    def give_up(self, reason: str) -> None: ...
    async def refuse(self, error: ApiError) -> None: ...


class ActiveRelays:
    """The answers being read in this process, and how many of them for clients that have left. One timer serves all of
    them: a timer per read, as aiohttp would set, costs more than metering the chunk."""

    def __init__(self) -> None:
        self.running = 0
        self.closing = False
        """Whether this process is to stop: each answer then ends its connection, so that the client's next call goes
        elsewhere instead of into a connection that is being closed."""
        self.is_replaced = False
        """Whether it is to stop because another gateway serves on the same port: to whoever asks, that one is ready."""
        self.relays: Final[set[ActiveRelay]] = set()
        self._given_up = False
        self._of_key: Final[Counter[str]] = Counter()
        """Drains by key."""

    def begin_drain(self, key: str) -> None:
        """The client of an answer has left."""
        self.running += 1
        self._of_key[key] += 1

    def end_drain(self, key: str) -> None:
        """Its answer has ended."""
        self.running -= 1
        self._of_key[key] -= 1
        if not self._of_key[key]:
            del self._of_key[key]

    def is_too_many(self, key: str, bounds: UpstreamSettings) -> bool:
        """Whether a drain of this key has to end. Where the process has too many, those who leave most give up theirs:
        nobody's leavers cost another key its exact row."""
        drains = self._of_key[key]
        if drains > bounds.drains_per_key_max:
            return True
        return self.running > bounds.drains_max and drains >= max(self._of_key.values())

    def add(self, relay: ActiveRelay) -> None:
        """Registers a relay."""
        self.relays.add(relay)
        if self._given_up:
            relay.give_up("drain_limit")

    async def check(self) -> None:
        """Gives up every answer that exceeds its bounds."""
        now = asyncio.get_running_loop().time()
        for relay in list(self.relays):
            relay.check(now)

    def give_up(self) -> None:
        """The process is stopping: answers are not read any further, and each is settled with what has arrived."""
        self._given_up = True
        for relay in list(self.relays):
            relay.give_up("drain_limit")
