"""Follows what commands have changed, so that a revoked key is refused at the next call and not after `keys.fresh_s`.

Not reaching Redis ends nothing: then a key is looked at when it is due, and what was missed is read afterwards.
"""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from gateway.access.admission import Admission
from gateway.accounts.key_changes import KeyChanges
from gateway.kit.errors import DependencyDown

WAIT_S: Final = 2.0
"""Seconds that one look waits for a change; a proxy is heard of as often."""
EVERY_S: Final = 0.02
"""Seconds between two looks, so that whoever floods the stream does not occupy the proxy."""
_log: Final = structlog.get_logger("gateway.proxy")


class FollowChanges:
    """One per proxy."""

    def __init__(self, changes: KeyChanges, admission: Admission, name: str, on_end: Callable[[], None]) -> None:
        """`on_end` is called when a key that is remembered has been ended."""
        self._changes: Final = changes
        self._admission: Final = admission
        self._name: Final = name
        self._on_end: Final = on_end
        self._after: bytes | None = None
        """The last entry that was acted on; None until the first look."""

    async def open(self) -> None:
        """Before the first call, and whenever nothing has come: a command waits for this proxy from here on. Raises
        DependencyDown."""
        newest = await self._changes.newest()
        if self._after is None or _place(newest) < _place(self._after):
            # What came before is unknown here, or Redis has lost what it had: so all that is remembered may be old.
            self._after = newest
            self._admission.doubt_all()
        await self._changes.confirm(self._name, ())

    async def step_once(self) -> None:
        """Waits for changes a little, and acts on them; after an outage, on those that were missed. Raises
        DependencyDown."""
        changes = [] if self._after is None else await self._changes.read(self._after, wait_s=WAIT_S)
        if not changes:
            await self.open()
            return
        keys = frozenset[str]().union(*(change.keys for change in changes))
        users = frozenset[str]().union(*(change.users for change in changes))
        if await self._admission.look_again(keys, users):
            self._on_end()
        self._after = changes[-1].entry_id
        await self._changes.confirm(self._name, changes)

    async def close(self) -> None:
        """Nobody waits for this proxy any more."""
        try:
            await self._changes.leave(self._name)
        except DependencyDown as error:  # commands name it for an hour as one that does not confirm
            _log.warning("not taken off the list of proxies", what=error.what, detail=error.detail)


def name_of(slot: str, folder: Path) -> str:
    """A name that only this proxy has, and the one that takes its slot after it: a slot is of one journal folder, and
    only one process holds it."""
    found = folder.stat()
    return f"{socket.gethostname()}/{found.st_dev:x}-{found.st_ino:x}/{slot}"


def _place(entry_id: bytes) -> tuple[int, int]:
    """Where an entry is in the stream."""
    unix_ms, _, number = entry_id.partition(b"-")
    return int(unix_ms), int(number or 0)
