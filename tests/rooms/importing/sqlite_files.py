"""A folder that must stay as it is, for tests that read SQLite files."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def state(folder: Path) -> dict[str, tuple[str, int]]:
    """Every file of the folder with its content and when it was last written."""
    return {
        path.name: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(folder.iterdir())
    }


@contextmanager
def untouched(folder: Path) -> Iterator[None]:
    """Whatever happens inside changes nothing in this folder."""
    before = state(folder)
    yield
    assert state(folder) == before
