"""The journal folder as an auditor may see it: every segment, confirmed ones too, read beside a living gateway.

Must not lock, mark, move or remove anything, and must not go by another process's state: a segment that goes while
it is read was confirmed, so nothing is lost with it. Records of a call are told apart by kind only; no prompt is there.
"""

import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from gateway.core.errors import DependencyDown
from gateway.core.frames import BOOT, OPEN, SETTLE, id_of, unframe
from gateway.edges.audit.snapshot import Snapshot

RECORD_BYTES_MAX: Final = 64 << 20
"""A line longer than this is garbage."""

# Which of these ids are neither a row nor in quarantine.
UNKNOWN: Final = """
select asked.id::text as id from unnest($1::uuid[]) as asked(id)
where not exists (select from public.openai_usage u where u.id = asked.id)
  and not exists (select from public.usage_quarantine q where q.event_id = asked.id::text)
"""


class Record(NamedTuple):
    """One OPEN or SETTLE."""

    event_id: str
    settled_at: datetime | None
    """`completed_at` of a SETTLE; None for an OPEN."""


class Journaled:
    """What was met while a folder was read."""

    def __init__(self) -> None:
        self.segments = 0
        self.unreadable = 0
        """Lines whose checksum does not hold, or that are no record."""


class _Settled(msgspec.Struct):
    completed_at: datetime


_settled: Final = msgspec.json.Decoder(_Settled)


def read_folder(folder: Path, met: Journaled) -> Iterator[Record]:
    """Every OPEN and SETTLE of every segment in `folder`, none of which need be there; `met` counts along.

    Raises DependencyDown("journal") when the folder or a segment is there and may not be read.
    """
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.name.endswith(".jnl"))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise DependencyDown("journal", f"{folder}: {error.strerror}; audit as the gateway's own user") from error
    for name in names:
        try:
            yield from _read_segment(folder / name, met)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise DependencyDown("journal", f"{folder / name}: {error.strerror}") from error


def _read_segment(path: Path, met: Journaled) -> Iterator[Record]:
    with path.open("rb") as file:
        met.segments += 1
        while line := file.readline(RECORD_BYTES_MAX):
            if not line.endswith(b"\n") and len(line) < RECORD_BYTES_MAX:
                return  # a last line still being written, or one that a dead writer left
            record = _record(line.rstrip(b"\n"), met) if line != b"\n" else None
            if record is not None:
                yield record


def _record(line: bytes, met: Journaled) -> Record | None:
    found = unframe(line)
    if found is None:
        met.unreadable += bool(line.strip(b"\0"))  # zeros are room that was set aside
        return None
    kind, payload = found
    if kind == BOOT or kind not in (OPEN, SETTLE):
        return None
    try:
        event_id = id_of(payload)
        return Record(event_id, _settled.decode(payload).completed_at if kind == SETTLE else None)
    except (ValueError, msgspec.DecodeError):
        met.unreadable += 1
        return None


async def unknown_ids(view: Snapshot, event_ids: Sequence[str]) -> set[str]:
    """Those of these event ids that the ledger does not have, neither as a row nor in quarantine."""
    return {row["id"] for row in await view.rows(UNKNOWN, list(event_ids))}
