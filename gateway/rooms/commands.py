"""`gateway rooms`: the keys that rooms are sealed with, and whether every room opens. Shows no field and, but for
`new-key`, no key.
"""

import asyncio
import os
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from gateway.cli.command import note
from gateway.cli.console import Console
from gateway.config.key_ring import KEY_BYTES, KeyRing, entry_of, is_key_id, parse_ring
from gateway.config.settings import Settings
from gateway.kit.errors import ConfigError, OptionError
from gateway.rooms.bulk_store import BulkRooms
from gateway.rooms.rotate import Checked, Rotated, Rotation
from gateway.rooms.rotate import check as check_rooms
from gateway.stores.one_connection import database

WHY: Final = "rooms are in PostgreSQL"
SHOWN_MAX: Final = 20
"""Rooms that a person is shown of those that fail; --json has all."""
PROGRESS_EVERY: Final = 1000

Progress = Callable[[int], None]


def ring_of(settings: Settings) -> KeyRing:
    """The key ring. Raises ConfigError when there is none."""
    if settings.rooms_keys is None:
        raise ConfigError("ROOMS_KEYS is not set: rooms are sealed with it (`gateway rooms new-key` makes an entry)")
    return parse_ring(settings.rooms_keys.get_secret_value())


def progress(verb: str, *, quiet: bool = False) -> Progress:
    """Says on standard error how many rooms are done, now and then."""
    said = 0

    def tell(rooms: int) -> None:
        nonlocal said
        if not quiet and rooms - said >= PROGRESS_EVERY:
            said = rooms
            note(f"{verb} {rooms:,} rooms")

    return tell


async def rotate_key(settings: Settings, console: Console, *, batch: int, as_json: bool = False) -> Rotated:
    """Seals every room anew that is not under the newest key, and says what is left. Raises ConfigError,
    DependencyDown.
    """
    ring = ring_of(settings)
    async with database(settings, WHY) as pool:
        rotation = Rotation(
            BulkRooms(pool),
            ring,
            random_bytes=os.urandom,
            sleep=asyncio.sleep,
            progress=progress("sealed anew:", quiet=as_json),
        )
        done = await rotation.run(batch=batch)
    if as_json:
        console.print_json({"newest": ring.newest, "resealed": done.resealed, "left": done.left, "failed": done.failed})
        return done
    console.say(f"{done.resealed:,} rooms sealed anew under {ring.newest!r}.")
    for key_id, rooms in done.left.items():
        console.say(f"{rooms:,} are still under {key_id!r}.")
    _say_failed(console, done.failed)
    old = [key_id for key_id in ring.ids if key_id != ring.newest]
    if done.left:
        busy = sum(done.left.values()) > len(done.failed)
        console.say("No key may be taken out of ROOMS_KEYS yet." + (" Run this again." if busy else ""))
    elif old:
        named = ", ".join(map(repr, old))
        console.say(
            f"No room is under {named} any more: once every process runs with {ring.newest!r} first in ROOMS_KEYS,"
        )
        console.say("run this again; if it then finds nothing, the old may go. Backups made before need them still.")
    return done


async def check(settings: Settings, console: Console, *, as_json: bool = False) -> Checked:
    """Opens every room, and lists those that do not open. Raises ConfigError, DependencyDown."""
    ring = ring_of(settings)
    async with database(settings, WHY) as pool:
        found = await check_rooms(BulkRooms(pool), ring, progress("checked", quiet=as_json))
    if as_json:
        console.print_json({"newest": ring.newest, "opened": found.opened, "failed": found.failed})
        return found
    for key_id in ring.ids:
        newest = " (the newest)" if key_id == ring.newest else ""
        console.say(f"{found.opened.get(key_id, 0):,} rooms open under {key_id!r}{newest}.")
    _say_failed(console, found.failed)
    return found


def new_key(settings: Settings, *, key_id: str | None, now: datetime, random_bytes: Callable[[int], bytes]) -> str:
    """A new entry for the front of ROOMS_KEYS, `id:base64`. Without an id it gets one of the day. Raises OptionError
    when the ring has that id, or it cannot be one.
    """
    ids = () if settings.rooms_keys is None else ring_of(settings).ids
    if key_id is None:
        day = f"k{now:%Y%m%d}"
        key_id = next(name for name in (day, *(f"{day}-{n}" for n in range(2, len(ids) + 3))) if name not in ids)
    if not is_key_id(key_id):
        raise OptionError("--id: letters, digits, '.', '_' and '-', 64 at most")
    if key_id in ids:
        raise OptionError(f"--id: ROOMS_KEYS has a key {key_id!r} already")
    return entry_of(key_id, random_bytes(KEY_BYTES))


def _say_failed(console: Console, failed: Mapping[str, str]) -> None:
    for room_id in list(failed)[:SHOWN_MAX]:
        console.say(f"room {room_id} {failed[room_id]}")
    if len(failed) > SHOWN_MAX:
        console.say(f"… and {len(failed) - SHOWN_MAX:,} more; --json has all.")
    if failed:
        console.say(f"{len(failed):,} rooms do not open; they were left as they are.")
