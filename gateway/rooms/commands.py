"""The output of `gateway rooms` for a rotation and for the check of all rooms: never a field or a key."""

from collections.abc import Mapping
from typing import Final

from gateway.cli.command import note
from gateway.cli.console import Console
from gateway.config.settings import Settings
from gateway.rooms import ring
from gateway.rooms.rotate import Checked, Progress, Rotated

SHOWN_MAX: Final = 20
"""Rooms that a person is shown of those that fail; --json has all."""
PROGRESS_EVERY: Final = 1000


def progress(verb: str, *, quiet: bool = False) -> Progress:
    """Says on standard error how many rooms are done, now and then."""
    said = 0

    def tell(rooms: int) -> None:
        nonlocal said
        if not quiet and rooms - said >= PROGRESS_EVERY:
            said = rooms
            note(f"{verb} {rooms:,} rooms")

    return tell


async def rotate_key(settings: Settings, console: Console, *, batch: int, as_json: bool) -> Rotated:
    """Rotates, and says what is left."""
    (newest, *old), done = await ring.rotate_key(
        settings, batch=batch, progress=progress("sealed anew:", quiet=as_json)
    )
    if as_json:
        console.print_json({"newest": newest, "resealed": done.resealed, "left": done.left, "failed": done.failed})
        return done
    console.say(f"{done.resealed:,} rooms sealed anew under {newest!r}.")
    for key_id, rooms in done.left.items():
        console.say(f"{rooms:,} are still under {key_id!r}.")
    _say_failed(console, done.failed)
    if done.left:
        busy = sum(done.left.values()) > len(done.failed)
        console.say("No key may be taken out of ROOMS_KEYS yet." + (" Run this again." if busy else ""))
    elif old:
        named = ", ".join(map(repr, old))
        console.say(f"No room is under {named} any more: once every process runs with {newest!r} first in ROOMS_KEYS,")
        console.say("run this again; if it then finds nothing, remove the old keys. Older backups still need them.")
    return done


async def check(settings: Settings, console: Console, *, as_json: bool) -> Checked:
    """Checks, and lists the rooms that do not open."""
    key_ids, found = await ring.check(settings, progress=progress("checked", quiet=as_json))
    if as_json:
        console.print_json({"newest": key_ids[0], "opened": found.opened, "failed": found.failed})
        return found
    for number, key_id in enumerate(key_ids):
        newest = "" if number else " (the newest)"
        console.say(f"{found.opened.get(key_id, 0):,} rooms open under {key_id!r}{newest}.")
    _say_failed(console, found.failed)
    return found


def _say_failed(console: Console, failed: Mapping[str, str]) -> None:
    for room_id in list(failed)[:SHOWN_MAX]:
        console.say(f"room {room_id} {failed[room_id]}")
    if len(failed) > SHOWN_MAX:
        console.say(f"… and {len(failed) - SHOWN_MAX:,} more; --json has all.")
    if failed:
        console.say(f"{len(failed):,} rooms do not open; they were left as they are.")
