"""The journal on this host's disk: where a call becomes durable.

One folder, one series of segment files per slot (a slot is one writing process, held by flock); a record is one
framed line (journal/frames). Appends of concurrent calls share one synchronous write (O_DSYNC: the same promise as
fdatasync, in one system call), in a thread of its own so that a slow disk never blocks the event loop. What must
not happen here: going on with a file after a failed write or sync (the kernel may have dropped its pages); a new call
on a full disk (the reserve is for those in flight); a record left readable
whose writer was told that it failed (a refused call would be swept as an estimate); a prompt, a key.
"""

import asyncio
import contextlib
import errno
import fcntl
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from gateway.journal.frames import BOOT, NOTE, OPEN, frame
from gateway.journal.reserve import Reserve
from gateway.journal.sync_folder import sync_folder
from gateway.kit.errors import DependencyDown, Expected
from gateway.kit.metrics import LATENCY_S, Histogram

FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_Batch = tuple[list[bytes], list[asyncio.Future[None]]]

LOCK_TRIES: Final = 10
RETRY_S: Final = 1.0
"""Seconds after which a failed journal looks whether the disk takes a new segment, calls or no calls."""
PACE_S: Final = 0.004
"""Seconds between two commits under load: a commit costs the same CPU for one record as for fifty. A record that
finds the disk idle does not wait."""


class SlotTaken(Expected):
    """Another living process writes this slot of the journal folder."""


class Journal:
    """The writing side of one slot. Use from one event loop; `open` first, `close` last."""

    def __init__(
        self,
        folder: Path,
        slot: str,
        boot_id: str,
        *,
        segment_bytes_max: int,
        reserve_bytes: int,
        unix_ms: Callable[[], int],
    ) -> None:
        self._folder: Final = folder
        self._slot: Final = slot
        self._boot_id: Final = boot_id
        self._segment_bytes_max: Final = segment_bytes_max
        self._reserve: Final = Reserve(folder / f"{slot}.reserve", reserve_bytes)
        self._full: str | None = None
        """Why the reserve had to be given back; until it is taken again no call is let in."""
        self._unix_ms: Final = unix_ms
        self._jobs: Final[SimpleQueue[_Batch | None]] = SimpleQueue()
        self._lines: list[bytes] = []
        self._waiters: list[asyncio.Future[None]] = []
        self._busy = False
        self._lock_fd = -1
        self._sync_fd = -1
        """Open with O_DSYNC; records that were promised."""
        self._note_fd = -1
        """The same file without it; hints."""
        self._size = 0
        self._newest_ms = 0
        self._sequence = 0
        self._poisoned = False
        """Whether this segment has failed, so that nothing may be written to it any more."""
        self._mending = False
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"journal-{slot}", daemon=True)
        self.commits: Final = Histogram(LATENCY_S)
        """How long each synchronous write took, seconds."""
        self.failure: str | None = None
        """Why the last commit failed; None while the journal is writable. Readiness reports it."""

    def open(self) -> None:
        """Takes the slot and begins a segment. Raises SlotTaken, or DependencyDown when the disk refuses."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock_fd = os.open(self._folder / f"{self._slot}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._take_lock()
            # Over the last one's id, then cut: a full disk would not give back what an empty file has let go.
            os.ftruncate(self._lock_fd, os.pwrite(self._lock_fd, self._boot_id.encode(), 0))
            self._find_newest()
            self._begin()
        except OSError as error:
            if self._lock_fd >= 0:
                os.close(self._lock_fd)
            raise DependencyDown("journal", f"{self._folder}: {error.strerror}") from error
        self._loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self._thread.start()
        if self._full is not None:
            self._fail(self._full)

    def _begin(self) -> None:
        """A disk that is full does not keep a process from starting: the keeper is needed to make room."""
        try:
            self._reserve.fill()
        except OSError as error:
            if error.errno not in FULL:
                raise
            self._full = error.strerror
        try:
            self._begin_segment()
        except OSError as error:
            if error.errno not in FULL:
                raise
            self._full, self._poisoned = error.strerror, True

    def _take_lock(self) -> None:
        for attempt in range(LOCK_TRIES):
            try:
                fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                # A reader that probes for life holds the lock for an instant; a living writer holds it for good.
                if attempt < LOCK_TRIES - 1:
                    time.sleep(0.02)
        os.close(self._lock_fd)
        raise SlotTaken(f"journal slot {self._slot!r} in {self._folder} is in use by another process")

    def _find_newest(self) -> None:
        """Names must go on rising when the clock does not: readers take a segment with a later one for finished."""
        for path in self._folder.glob(f"{self._slot}.*.jnl"):
            _, unix_ms, sequence, _ = path.name.split(".")
            self._newest_ms, self._sequence = max((self._newest_ms, self._sequence), (int(unix_ms), int(sequence)))

    def append(self, kind: bytes, payload: bytes) -> asyncio.Future[None]:
        """The record is queued at once, and on disk when the future is done; cancelling it takes nothing back.

        The future raises DependencyDown when the record could not be written.
        """
        waiter: asyncio.Future[None] = self._loop.create_future()
        refused = "it is closed" if self._closed else self._full if kind == OPEN else None
        if refused is not None:
            waiter.set_exception(DependencyDown("journal", refused))
            return waiter
        self._lines.append(frame(kind, payload))
        self._waiters.append(waiter)
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._submit)
        return waiter

    def note(self, payload: bytes) -> None:
        """Writes a NOTE at once, without waiting for the disk: a hint for the sweeper, never a promise."""
        if self._poisoned or self._closed:
            return
        try:
            os.write(self._note_fd, frame(NOTE, payload))
        except OSError as error:
            self._fail(error.strerror or str(error))

    def close(self) -> None:
        """Commits what was appended so far, then gives the slot back."""
        self._closed = True
        self._submit()
        self._jobs.put(None)
        self._thread.join()
        for fd in (self._sync_fd, self._note_fd, self._lock_fd):
            if fd >= 0:
                os.close(fd)

    def _submit(self) -> None:
        if self._lines:
            lines, self._lines = self._lines, []
            waiters, self._waiters = self._waiters, []
            self._jobs.put((lines, waiters))

    def _run(self) -> None:
        """The commit thread: one synchronous write for every batch."""
        while (batch := self._jobs.get()) is not None:
            lines, waiters = batch
            begun = time.perf_counter()
            try:
                failure = self._commit(b"".join(lines))
            except Exception as error:  # noqa: BLE001  # the thread must live on, or every call would wait for ever
                # How much of it was written is unknown: what comes next goes into a segment of its own.
                self._poisoned, failure = True, type(error).__name__
            self.commits.observe(time.perf_counter() - begun)
            self._loop.call_soon_threadsafe(self._finish_commit, waiters, failure)

    def _commit(self, data: bytes) -> str | None:
        """Writes `data`; why not, when it could not. An empty `data` only repairs a failed journal."""
        try:
            self._try(data)
        except OSError as error:
            if not data or error.errno not in FULL or not self._reserve.spend():
                return error.strerror or str(error)
            self._full = error.strerror
            try:
                self._try(data)
            except OSError as again:
                return again.strerror or str(again)
        if self._size >= self._segment_bytes_max:
            with contextlib.suppress(OSError):  # without room for a new segment, this one goes on growing
                self._begin_segment()
        return None

    def _try(self, data: bytes) -> None:
        if self._poisoned:
            self._begin_segment()
        if data:
            self._write(data)
        elif self._full is not None:
            self._reserve.fill()
            self._full = None

    def _finish_commit(self, waiters: list[asyncio.Future[None]], failure: str | None) -> None:
        wrong = failure or self._full
        if wrong is None:
            self.failure = None
        else:
            self._fail(wrong)
        for waiter in waiters:
            if waiter.done():
                continue
            if failure is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(DependencyDown("journal", failure))
        if self._lines:
            self._loop.call_later(PACE_S, self._submit)
        else:
            self._busy = False

    def _fail(self, failure: str) -> None:
        """Readiness turns calls away from a failed journal, so it finds out by itself when the disk is back."""
        self.failure = failure
        if not self._mending:
            self._mending = True
            self._loop.call_later(RETRY_S, self._mend)

    def _mend(self) -> None:
        self._mending = False
        if self.failure is not None and not self._closed:
            self._jobs.put(([], []))

    def _write(self, data: bytes) -> None:
        """All of it, or OSError and nothing of it stays readable."""
        start = os.fstat(self._sync_fd).st_size
        # The empty line keeps a note that was cut short from spoiling the first record; readers skip it.
        data = b"\n" + data
        try:
            if os.write(self._sync_fd, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            self._abandon_segment(start)
            raise
        self._size = start + len(data)

    def _abandon_segment(self, start: int) -> None:
        """After a failed write or sync the old file is never trusted again: a new segment, or none for now."""
        self._poisoned = True
        with contextlib.suppress(OSError):  # then a refused call may be swept as an estimate: too much, not too little
            os.ftruncate(self._sync_fd, start)
        with contextlib.suppress(OSError):  # the next commit tries again, and says why not
            self._begin_segment()

    def _begin_segment(self) -> None:
        self._sequence += 1
        self._newest_ms = max(self._newest_ms, self._unix_ms())
        path = self._folder / f"{self._slot}.{self._newest_ms:013d}.{self._sequence:06d}.jnl"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
        header = frame(BOOT, b'"%b"' % self._boot_id.encode())
        opened = []
        try:
            opened.append(os.open(path, flags | os.O_CREAT | os.O_EXCL | os.O_DSYNC, 0o600))
            opened.append(os.open(path, flags))
            if os.write(opened[0], header) != len(header):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            sync_folder(self._folder)
        except OSError:
            for fd in opened:
                os.close(fd)
            path.unlink(missing_ok=True)
            raise
        if self._sync_fd >= 0:
            # dup2 keeps the numbers: the event loop may be writing a note through them at this very moment.
            for fd, kept in zip(opened, (self._sync_fd, self._note_fd), strict=True):
                os.dup2(fd, kept, inheritable=False)
                os.close(fd)
        else:
            self._sync_fd, self._note_fd = opened
        self._size, self._poisoned = len(header), False
