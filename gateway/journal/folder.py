"""A journal folder as a whole, for `gateway journal`: its content, and copying it from a dead host.

Reads beside a living keeper: takes no lock for longer than an instant, marks and removes nothing. Adopting copies, so
that whatever goes wrong the original is still there.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

import msgspec

from gateway.journal.frames import BOOT, OPEN, SETTLE, id_of, unframe
from gateway.kit.errors import DependencyDown, OptionError
from gateway.kit.ids import unix_ms_of

LINE_BYTES_MAX: Final = 64 << 20


class SegmentInfo(NamedTuple):
    """What one segment holds. Ids are event ids."""

    path: Path
    slot: str
    boot: str | None
    bytes: int
    opened: frozenset[str]
    settled: frozenset[str]
    corrupt: int
    """Lines whose checksum does not hold; a torn last line is not one."""
    confirmed: bool
    """Whether the keeper has marked it: every call in it is in PostgreSQL."""


def segments_of(folder: Path) -> list[Path]:
    """Every segment, by name. Raises OptionError when `folder` is not a journal."""
    if not folder.is_dir():
        raise OptionError(f"{folder}: there is no such folder")
    found = sorted(folder.glob("*.jnl"))
    if not found:
        raise OptionError(f"{folder}: no segments (*.jnl) in it; a journal is the folder `journal` of GATEWAY_DATA_DIR")
    return found


def look(path: Path) -> SegmentInfo:
    """Reads one segment. Raises DependencyDown("journal") when it cannot be read."""
    boot: str | None = None
    opened: set[str] = set()
    settled: set[str] = set()
    corrupt = size = 0
    try:
        for line in _lines(path):
            size += len(line)
            found = unframe(line.rstrip(b"\n"))
            if found is None:
                corrupt += line.endswith(b"\n") and line != b"\n"
            elif found[0] == BOOT:
                boot = msgspec.json.decode(found[1], type=str)
            elif found[0] in (OPEN, SETTLE):
                (opened if found[0] == OPEN else settled).add(id_of(found[1]))
    except (OSError, ValueError) as error:
        raise DependencyDown("journal", f"{path}: {error}") from error
    slot = path.name.split(".", 1)[0]
    marked = path.with_name(path.name + ".confirmed").exists()
    return SegmentInfo(path, slot, boot, size, frozenset(opened), frozenset(settled), corrupt, marked)


def read_settled(path: Path) -> Iterator[tuple[str, bytes]]:
    """The event id and the payload of every SETTLE in one segment; nothing where a keeper has removed it meanwhile.
    Raises DependencyDown("journal") when it cannot be read."""
    try:
        for line in _lines(path):
            found = unframe(line.rstrip(b"\n"))
            if found is not None and found[0] == SETTLE:
                yield id_of(found[1]), found[1]
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise DependencyDown("journal", f"{path}: {error}") from error


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while line := file.readline(LINE_BYTES_MAX):
            yield line


def living_slots(folder: Path) -> set[str]:
    """Slots whose writer lives, as far as this host can tell: locks do not reach over the network."""
    found = set()
    for path in folder.glob("*.lock"):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            found.add(path.name.removesuffix(".lock"))
        finally:
            os.close(fd)
    return found


def oldest_ms(ids: frozenset[str]) -> int | None:
    """When the oldest of these calls began, milliseconds since the epoch."""
    return min(map(unix_ms_of, ids), default=None)


def copy_journal(source: Path, target: Path) -> tuple[list[SegmentInfo], int]:
    """Copies what `source` holds and PostgreSQL may not, durably; (what was copied, how many were here already).

    Safe to run twice: a segment keeps its name, with a mark of the process that wrote it. Raises OptionError when
    `source` is ours or somebody still writes it, DependencyDown("journal") when the disk refuses.
    """
    paths = segments_of(source)
    if source.resolve() == target.resolve():
        raise OptionError(f"{source}: this is the gateway's own journal; its keeper reads it anyway")
    alive = living_slots(source)
    if alive:
        raise OptionError(f"{source}: still written by a living process ({', '.join(sorted(alive))}); stop it first")
    taken, known = [], 0
    try:
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in paths:
            info = look(path)
            if info.confirmed or not (info.opened or info.settled):
                continue
            slot, rest = path.name.split(".", 1)
            mark = f"{crc32((info.boot or '').encode()):08x}"
            copy = target / f"{slot}-{mark}.{rest}"
            if copy.exists() or copy.with_name(copy.name + ".confirmed").exists():
                known += 1
                continue
            _copy(path, copy)
            taken.append(info)
    except OSError as error:
        raise DependencyDown("journal", f"{target}: {error.strerror}") from error
    return taken, known


def _copy(path: Path, copy: Path) -> None:
    """Whole and on disk under its name, or not there at all: a keeper may be reading the folder."""
    draft = copy.with_name(f".{copy.name}.adopting")
    with path.open("rb") as original, draft.open("wb") as file:
        os.fchmod(file.fileno(), 0o600)
        shutil.copyfileobj(original, file, 1 << 20)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(copy)
    fd = os.open(copy.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
