"""The keys that seal rooms: makes a new one, reseals every room under the newest, checks that every room opens."""

import asyncio
import os
from collections.abc import Callable
from datetime import datetime
from typing import Final, NamedTuple

from gateway.config.key_ring import KEY_BYTES, KeyRing, entry_of, is_key_id, parse_ring
from gateway.config.settings import Settings
from gateway.kit.errors import ConfigError, OptionError
from gateway.rooms.bulk_store import BulkRooms
from gateway.rooms.rotate import Checked, Progress, Rotated, Rotation, check_rooms
from gateway.stores.one_connection import database
from gateway.trail.record import intending
from gateway.trail.store import Deed

WHY: Final = "rooms are in PostgreSQL"


class RingRotated(NamedTuple):
    """How a rotation ended under a ring of these keys, the newest first."""

    key_ids: tuple[str, ...]
    done: Rotated


class RingChecked(NamedTuple):
    """What a check found under a ring of these keys, the newest first."""

    key_ids: tuple[str, ...]
    found: Checked


def read_ring(settings: Settings) -> KeyRing:
    """The key ring. Raises ConfigError when there is none."""
    if settings.rooms_keys is None:
        raise ConfigError("ROOMS_KEYS is not set: rooms are sealed with it (`gateway rooms new-key` makes an entry)")
    return parse_ring(settings.rooms_keys.get_secret_value())


async def rotate_key(settings: Settings, *, batch: int, progress: Progress) -> RingRotated:
    """Seals every room anew that is not under the newest key, and says what is left. Raises ConfigError,
    DependencyDown.
    """
    ring = read_ring(settings)
    async with database(settings, WHY) as pool:
        rotation = Rotation(BulkRooms(pool), ring, random_bytes=os.urandom, sleep=asyncio.sleep, progress=progress)
        async with intending(settings, Deed("rotate-key", "rooms", None, None, {"newest": ring.newest})) as intent:
            done = await rotation.run(batch=batch)
            told = {"resealed": done.resealed, "left": done.left, "failed": len(done.failed)}
            intent.learn({"newest": ring.newest, **told})
        return RingRotated(ring.ids, done)


async def check(settings: Settings, *, progress: Progress) -> RingChecked:
    """Opens every room. Raises ConfigError, DependencyDown."""
    ring = read_ring(settings)
    async with database(settings, WHY) as pool:
        return RingChecked(ring.ids, await check_rooms(BulkRooms(pool), ring, progress))


def new_key(settings: Settings, *, key_id: str | None, now: datetime, random_bytes: Callable[[int], bytes]) -> str:
    """A new entry for the front of ROOMS_KEYS, `id:base64`. Without an id it gets one of the day. Raises OptionError
    when the ring has that id, or it cannot be one.
    """
    ids = () if settings.rooms_keys is None else read_ring(settings).ids
    if key_id is None:
        day = f"k{now:%Y%m%d}"
        key_id = next(name for name in (day, *(f"{day}-{n}" for n in range(2, len(ids) + 3))) if name not in ids)
    if not is_key_id(key_id):
        raise OptionError("--id: letters, digits, '.', '_' and '-', 64 at most")
    if key_id in ids:
        raise OptionError(f"--id: ROOMS_KEYS has a key {key_id!r} already")
    return entry_of(key_id, random_bytes(KEY_BYTES))
