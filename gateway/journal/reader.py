"""The reading side of the journal folder: tails every segment, detects dead writers. Writes no records.

A segment is `<slot>.<unix ms>.<sequence>.jnl`; an empty `<segment>.confirmed` beside it says that every call
in it is in Postgres, so a restart need not read it again.
"""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from gateway.journal.frames import BOOT, NOTE, describe_broken, unframe
from gateway.kit.errors import DependencyDown

READ_BYTES_MAX: Final = 1 << 20
"""Bytes taken from one segment in one go, so that a large backlog never fills memory."""
RECORD_BYTES_MAX: Final = 64 << 20
"""A line longer than this is garbage."""


class Segment:
    """One segment file: how far it has been read, and how many of its calls are not yet in Postgres."""

    def __init__(self, path: Path) -> None:
        self.path: Final = path
        self.slot: Final = path.name.split(".", 1)[0]
        self.boot: str | None = None
        self.offset = 0
        self.unconfirmed = 0
        self.corrupt = 0
        """Lines skipped because their checksum did not hold, or because what it vouches for made no sense."""

    @property
    def marker(self) -> Path:
        return self.path.with_name(self.path.name + ".confirmed")


class Record(NamedTuple):
    """One record as found: its payload, and where it lies so that it can be read again."""

    segment: Segment
    kind: bytes
    payload: bytes
    offset: int


class Segments:
    """All segments of a journal folder. Not thread-safe: one reader, the keeper."""

    def __init__(self, folder: Path) -> None:
        self._folder: Final = folder
        self._known: Final[dict[str, Segment]] = {}
        self.corrupt_living = 0
        """Corrupt records, notes aside, that were read while their writer was there: no crash has torn these."""

    def refresh(self) -> None:
        """Looks for new segment files; those marked confirmed are skipped."""
        names = {entry.name for entry in os.scandir(self._folder)} if self._folder.is_dir() else set()
        for name in sorted(names):
            if name.endswith(".jnl") and name not in self._known and f"{name}.confirmed" not in names:
                self._known[name] = Segment(self._folder / name)

    def poll(self) -> Iterator[Record]:
        """New whole records of every segment, at most READ_BYTES_MAX bytes from each."""
        for segment in list(self._known.values()):
            yield from self._read(segment)

    def _read(self, segment: Segment) -> Iterator[Record]:
        with segment.path.open("rb") as file:
            file.seek(segment.offset)
            data = file.read(READ_BYTES_MAX)
            if len(data) == READ_BYTES_MAX and b"\n" not in data:
                data += file.readline(RECORD_BYTES_MAX)
        end = data.rfind(b"\n") + 1
        if end == 0 and len(data) > RECORD_BYTES_MAX:
            segment.corrupt += 1
            end = len(data)  # never a reason to stand still
        start = 0
        while start < end:
            stop = data.find(b"\n", start, end)
            stop = end if stop < 0 else stop
            line, offset = data[start:stop], segment.offset + start
            start = stop + 1
            if not line:
                continue
            found = unframe(line)
            if found is None:
                segment.corrupt += 1
                if describe_broken(line).kind != NOTE and self.writer_lives(segment.slot, segment.boot):
                    self.corrupt_living += 1
            elif found[0] == BOOT:
                segment.boot = msgspec.json.decode(found[1], type=str)
            else:
                yield Record(segment, found[0], found[1], offset)
        segment.offset += end

    def reread(self, segment: Segment, offset: int) -> bytes:
        """The payload of the record at `offset`. Raises ValueError when it is no longer readable."""
        with segment.path.open("rb") as file:
            file.seek(offset)
            found = unframe(file.readline().rstrip(b"\n"))
        if found is None:
            raise ValueError(f"{segment.path.name} at {offset}: the record no longer reads")
        return found[1]

    def read_to_end(self, slot: str) -> bool:
        """Whether every record of this slot has been read, in segments made since the last `refresh` too."""
        self.refresh()
        return all(self._is_read(segment) for segment in self._known.values() if segment.slot == slot)

    def is_behind(self, slot: str) -> bool:
        """Whether more of this slot waits to be read than one go takes: after an outage, or while one lasts."""
        known = [segment for segment in self._known.values() if segment.slot == slot]
        return sum(segment.path.stat().st_size - segment.offset for segment in known) > READ_BYTES_MAX

    def any_behind(self) -> bool:
        """Whether that is so of any slot."""
        return any(self.is_behind(slot) for slot in {segment.slot for segment in self._known.values()})

    def _is_read(self, segment: Segment) -> bool:
        """A last line without its end, as a dead writer leaves it, counts as read."""
        if segment.path.stat().st_size <= segment.offset:
            return True
        with segment.path.open("rb") as file:
            file.seek(segment.offset)
            return b"\n" not in file.read(READ_BYTES_MAX)

    def writer_lives(self, slot: str, boot: str | None) -> bool:
        """Whether the process that wrote as `boot` still holds the slot's lock; None: whoever holds it."""
        try:
            fd = os.open(self._folder / f"{slot}.lock", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            if boot is not None and os.pread(fd, 64, 0).decode("ascii", "replace") != boot:
                return False
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def retire(self, *, now_s: float, keep_s: float) -> int:
        """Marks finished segments, removes those confirmed for longer than `keep_s` seconds; how many went.

        Raises DependencyDown("journal") when the disk refuses; then they stay, and it is tried again.
        """
        try:
            return self._retire(now_s, keep_s)
        except OSError as error:
            raise DependencyDown("journal", f"{self._folder}: {error.strerror}") from error

    def _retire(self, now_s: float, keep_s: float) -> int:
        for name, segment in list(self._known.items()):
            finished = not self.writer_lives(segment.slot, segment.boot) or self._has_successor(segment)
            if finished and segment.unconfirmed == 0 and self._is_read(segment):
                segment.marker.touch(mode=0o600)
                del self._known[name]
        # What is removed below was marked on disk a day ago at least; a marker that is lost only means reading again.
        removed = 0
        for marker in self._folder.glob("*.jnl.confirmed"):
            if now_s - marker.stat().st_mtime >= keep_s:
                # The segment first: a marker without a segment is harmless, the reverse would be read again.
                marker.with_suffix("").unlink(missing_ok=True)
                marker.unlink()
                removed += 1
        return removed

    def _has_successor(self, segment: Segment) -> bool:
        return any(other.slot == segment.slot and other.path.name > segment.path.name for other in self._known.values())

    def bytes_on_disk(self) -> int:
        """Bytes of all segments in the folder, kept ones included."""
        return sum(path.stat().st_size for path in self._folder.glob("*.jnl"))

    @property
    def corrupt(self) -> int:
        """Records skipped so far because they were torn or corrupt."""
        return sum(segment.corrupt for segment in self._known.values())
