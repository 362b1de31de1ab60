"""Rotation: reseals every room under the ring's newest key; and the check that every room opens.

May be killed at any time and begun again, by two at once as well: what is done stays done. A room that does not open is
left exactly as it is.
"""

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from gateway.config.key_ring import KeyRing
from gateway.rooms.bulk_store import FIRST, BulkRooms, StoredEnvelope
from gateway.rooms.room import place_of
from gateway.rooms.sealing import NotOpened, RandomBytes, Sealed, open_sealed, seal

PASSES_MAX: Final = 50
"""Passes over rooms that others are writing, before those are left to the next run."""
PAUSE_S: Final = 0.2
"""Seconds between two of them."""
CHECK_BATCH: Final = 500

Progress = Callable[[int], None]
"""Told how many rooms have been done so far."""


class Rotated(NamedTuple):
    """How a rotation ended."""

    resealed: int
    left: dict[str, int]
    """Rooms that are still under another key than the newest, per key id."""
    failed: dict[str, str]
    """Rooms that do not open, and why."""


class Checked(NamedTuple):
    """What a check found."""

    opened: dict[str, int]
    """Rooms that open, per key id."""
    failed: dict[str, str]
    """Rooms that do not, and why."""


class Rotation:
    """Seals all rooms anew under one ring."""

    def __init__(
        self,
        rooms: BulkRooms,
        ring: KeyRing,
        *,
        random_bytes: RandomBytes,
        sleep: Callable[[float], Awaitable[None]],
        progress: Progress,
    ) -> None:
        self._rooms: Final = rooms
        self._ring: Final = ring
        self._random_bytes: Final = random_bytes
        self._sleep: Final = sleep
        self._progress: Final = progress
        self._resealed = 0
        self._failed: dict[str, str] = {}

    async def run(self, *, batch: int) -> Rotated:
        """Until nothing is left that can be done. Raises DependencyDown; what was done by then stays."""
        for number in range(PASSES_MAX):
            if number:
                await self._sleep(PAUSE_S)
            self._failed.clear()
            await self._pass(batch)
            left = await self._left()
            # The rest is being written by somebody else this very moment, or by a second rotation.
            if sum(left.values()) <= len(self._failed):
                break
        return Rotated(self._resealed, left, dict(self._failed))

    async def _pass(self, batch: int) -> None:
        after = FIRST
        while seen := await self._rooms.reseal(self._ring.newest, after, batch, self._reseal):
            after = seen[-1]
            self._progress(self._resealed)

    def _reseal(self, stored: StoredEnvelope) -> Sealed | None:
        place = place_of(stored.room_id)
        try:
            fields = open_sealed(self._ring, stored.sealed, place)
        except NotOpened as error:
            self._failed[stored.room_id] = str(error)
            return None
        self._resealed += 1
        return seal(self._ring, fields, place, self._random_bytes)

    async def _left(self) -> dict[str, int]:
        return {key_id: rooms for key_id, rooms in (await self._rooms.counts()).items() if key_id != self._ring.newest}


async def check_rooms(rooms: BulkRooms, ring: KeyRing, progress: Progress) -> Checked:
    """Opens every room. Raises DependencyDown."""
    opened: dict[str, int] = {}
    failed: dict[str, str] = {}
    after = FIRST
    while page := await rooms.read_sealed(after, CHECK_BATCH):
        for room_id, sealed in page:
            try:
                open_sealed(ring, sealed, place_of(room_id))
            except NotOpened as error:
                failed[room_id] = str(error)
            else:
                opened[sealed.key_id] = opened.get(sealed.key_id, 0) + 1
        after = page[-1].room_id
        progress(sum(opened.values()) + len(failed))
    return Checked(opened, failed)
