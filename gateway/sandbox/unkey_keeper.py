"""Keeps the Unkey stand-in's keys in a file, so that `gateway up` finds them again after a restart.

The file holds hashes of keys, never keys. Without a file nothing is kept.
"""

import os
from pathlib import Path
from typing import Final

import msgspec

from gateway.sandbox.unkey import Kept


class Keeper:
    """One file, written whole each time."""

    def __init__(self, path: Path | None) -> None:
        self._path: Final = path

    def load(self) -> Kept:
        """What the last run knew; nothing when there was none. Raises msgspec.DecodeError on a damaged file."""
        if self._path is None or not self._path.exists():
            return Kept()
        return msgspec.json.decode(self._path.read_bytes(), type=Kept)

    def save(self, kept: Kept) -> None:
        """Replaces the file at once, so that a kill leaves the old or the new one."""
        if self._path is None:
            return
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self._path.with_suffix(".new")
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(msgspec.json.encode(kept))
        fresh.replace(self._path)
