"""All answers that a process is reading: their bounds in time, and their end with the process."""

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.proxy.relay import Relay

WATCH_S: Final = 1.0
"""Seconds between two looks for answers that are beyond their bounds."""


class ActiveRelays:
    """The answers being read in this process, and how many of them for clients that have left.

    One timer looks after all of them: a timer per read, as aiohttp would set, costs more than metering the chunk.
    """

    def __init__(self) -> None:
        self.running = 0
        self.closing = False
        """Whether this process is to stop: each answer then ends its connection, so that the client's next call goes
        elsewhere instead of into a connection that is being closed."""
        self.relays: Final[set[Relay]] = set()
        self._given_up = False

    def add(self, relay: "Relay") -> None:
        """Looks after this one too."""
        self.relays.add(relay)
        if self._given_up:
            relay.give_up("drain_limit")

    async def check(self) -> None:
        """Gives up every answer that is beyond its bounds."""
        now = asyncio.get_running_loop().time()
        for relay in list(self.relays):
            relay.check(now)

    def give_up(self) -> None:
        """The process is to end: no answer is read any further, and each is settled by what has come."""
        self._given_up = True
        for relay in list(self.relays):
            relay.give_up("drain_limit")
