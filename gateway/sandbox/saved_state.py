"""Keeps what a stand-in knows in a file of JSON, so that `gateway up` finds it again after a restart.

Of Unkey's keys the file holds hashes, never keys. Without a file nothing is kept.
"""

import os
from pathlib import Path
from typing import Final, Generic, TypeVar

import msgspec

T = TypeVar("T", bound=msgspec.Struct)


class Keeper(Generic[T]):
    """One file, written whole each time."""

    def __init__(self, path: Path | None, kind: type[T]) -> None:
        self._path: Final = path
        self._kind: Final = kind

    def load(self) -> T | None:
        """What the last run knew; None when there was none. Raises msgspec.DecodeError on a damaged file."""
        if self._path is None or not self._path.exists():
            return None
        return msgspec.json.decode(self._path.read_bytes(), type=self._kind)

    def save(self, kept: T) -> None:
        """Replaces the file at once, so that a kill leaves the old or the new one."""
        if self._path is None:
            return
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self._path.with_suffix(".new")
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(msgspec.json.encode(kept))
        fresh.replace(self._path)
