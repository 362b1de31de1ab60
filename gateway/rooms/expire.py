"""Expiry: erases the sealed data of rooms whose time is over. Needs no key."""

from collections.abc import Callable
from datetime import datetime
from typing import Final

import structlog

from gateway.rooms.store import Rooms

BATCH: Final = 500
_log: Final = structlog.get_logger("gateway.rooms")


class Expiry:
    """One per worker; any number may run."""

    def __init__(self, rooms: Rooms, *, now: Callable[[], datetime]) -> None:
        self._rooms: Final = rooms
        self._now: Final = now

    async def step_once(self) -> int:
        """Expires every room that is due; how many. Raises DependencyDown."""
        expired = 0
        while batch := await self._rooms.expire_due(self._now(), rows_max=BATCH):
            expired += batch
        if expired:
            _log.info("rooms expired", rooms=expired)
        return expired
