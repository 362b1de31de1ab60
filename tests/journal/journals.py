"""Journals in a folder of the test's own, what they hold, and a disk that fails when told to."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.journal.frames import BOOT, OPEN, frame
from gateway.journal.reader import Segments
from gateway.journal.writer import Journal
from gateway.kit.ids import uuid7

ID = uuid7(1, 1)


def payload(number: int) -> bytes:
    return b'{"id":"%b","n":%d}' % (uuid7(number, 0).encode(), number)


def make(folder: Path, *, slot: str = "w0", boot: str = "boot-1", size: int = 1 << 20, reserve: int = 0) -> Journal:
    return Journal(folder, slot, boot, segment_bytes_max=size, reserve_bytes=reserve, unix_ms=lambda: 1_700_000_000_000)


def is_failed(journal: Journal) -> bool:
    return journal.failure is not None


def read_all(folder: Path) -> list[bytes]:
    segments = Segments(folder)
    segments.refresh()
    return [record.payload for record in segments.poll()]


class Disk:
    """Stands between the journal and the disk; counts, and fails when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.failing: dict[str, int] = {}
        """errno by function; `short` makes a write end early."""
        self.short = 0
        for name in ("write", "open", "fsync", "ftruncate"):
            monkeypatch.setattr(os, name, self._wrapped(name, getattr(os, name)))

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **named: Any) -> Any:
            if name == "open" and ".jnl" not in str(arguments[0]):
                return real(*arguments, **named)
            self.calls.append(name)
            if name == "write" and self.short:
                return real(arguments[0], bytes(arguments[1])[: self.short])
            if name in self.failing:
                raise OSError(self.failing[name], os.strerror(self.failing[name]))
            return real(*arguments, **named)

        return called


def segment_of(folder: Path, count: int) -> tuple[Path, list[bytes]]:
    lines = [frame(BOOT, b'"boot-1"'), *(frame(OPEN, payload(number)) for number in range(count))]
    path = folder / "w0.0000000000001.000001.jnl"
    path.write_bytes(b"".join(lines))
    return path, lines
