"""Space reserved on the journal's disk for the calls in flight: released when the disk is full, so that each of
them can still settle while new calls are refused.
"""

import os
from pathlib import Path
from typing import Final


class Reserve:
    """One preallocated file. Raises OSError; who calls knows what a full disk means."""

    def __init__(self, path: Path, size: int) -> None:
        """`size` in bytes; 0 keeps nothing."""
        self._path: Final = path
        self._size: Final = size
        self.spent = size > 0
        """Whether there is nothing left to give back."""

    def fill(self) -> None:
        """Takes the room, all of it or none."""
        if not self._size:
            return
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, self._size)
        except OSError:
            os.ftruncate(fd, 0)  # half a reserve would only make the disk look fuller
            raise
        finally:
            os.close(fd)
        self.spent = False

    def spend(self) -> bool:
        """Gives the room back; whether there was any."""
        if self.spent or not self._size:
            return False
        os.truncate(self._path, 0)
        self.spent = True
        return True
