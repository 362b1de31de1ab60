"""The journal folder for the audit: every segment, including confirmed ones, read while a gateway may run.

Must not lock, mark, move or remove anything, and must not go by another process's state: a segment that goes while
it is read was confirmed, so nothing is lost with it. Records of a call are distinguished by kind only: no prompt.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from gateway.audit.reads.snapshot import Snapshot
from gateway.journal.frames import BOOT, NOTE, OPEN, SETTLE, describe_broken, id_of, unframe
from gateway.kit.errors import DependencyDown
from pricing.readers.body import UNREADABLE

RECORD_BYTES_MAX: Final = 64 << 20
"""A line longer than this is garbage."""
NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""When a call was settled whose SETTLE does not read: no delay excuses that it is missing."""

WriterLives = Callable[[str, str | None], bool]
"""Whether the process that wrote as this slot and boot id is still there."""

# Which of these ids are neither a row nor in quarantine.
UNKNOWN: Final = """
select asked.id::text as id from unnest($1::uuid[]) as asked(id)
where not exists (select from public.openai_usage u where u.id = asked.id)
  and not exists (select from public.usage_quarantine q where q.event_id = asked.id::text)
"""


class AuditedRecord(NamedTuple):
    """One OPEN or SETTLE."""

    event_id: str
    settled_at: datetime | None
    """`completed_at` of a SETTLE, NEVER where it does not read; None for an OPEN."""


class Journaled:
    """What was met while a folder was read."""

    def __init__(self) -> None:
        self.segments = 0
        self.unreadable = 0
        """Lines whose checksum does not hold, or that are no record."""
        self.unreadable_living = 0
        """Those of them, notes aside, that a process wrote which is still there: no crash has torn these."""
        self.written_by_living: list[str] = []
        """The segments in which those are."""


class _Settled(msgspec.Struct):
    completed_at: datetime


_settled: Final = msgspec.json.Decoder(_Settled)


def read_folder(folder: Path, met: Journaled, lives: WriterLives) -> Iterator[AuditedRecord]:
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
            yield from _read_segment(folder / name, met, lives)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise DependencyDown("journal", f"{folder / name}: {error.strerror}") from error


def _read_segment(path: Path, met: Journaled, lives: WriterLives) -> Iterator[AuditedRecord]:
    boot: str | None = None
    broken = 0
    with path.open("rb") as file:
        met.segments += 1
        while line := file.readline(RECORD_BYTES_MAX):
            if not line.endswith(b"\n") and len(line) < RECORD_BYTES_MAX:
                break  # a last line still being written, or one that a dead writer left
            line = line.rstrip(b"\n")
            if not line.strip(b"\0"):  # zeros are room that was set aside
                continue
            found = unframe(line)
            record = None if found is None else _read_record(*found)
            if found is not None and found[0] == BOOT:
                boot = msgspec.json.decode(found[1], type=str)
            elif record is not None:
                yield record
            elif found is None or found[0] in (OPEN, SETTLE):
                seen = describe_broken(line)
                met.unreadable += 1
                broken += seen.kind != NOTE  # a note is only a hint, and a full disk may cut one short
                if seen.kind == SETTLE and seen.event_id is not None:
                    yield AuditedRecord(seen.event_id, NEVER)
    if broken and lives(path.name.split(".", 1)[0], boot):
        met.unreadable_living += broken
        met.written_by_living.append(path.name)


def _read_record(kind: bytes, payload: bytes) -> AuditedRecord | None:
    """None when it is neither an OPEN nor a SETTLE, or does not read."""
    if kind not in (OPEN, SETTLE):
        return None
    try:
        event_id = id_of(payload)
        return AuditedRecord(event_id, _settled.decode(payload).completed_at if kind == SETTLE else None)
    except UNREADABLE:
        return None


async def unknown_ids(view: Snapshot, event_ids: Sequence[str]) -> set[str]:
    """Those of these event ids that the ledger does not have, neither as a row nor in quarantine."""
    return {row["id"] for row in await view.rows(UNKNOWN, list(event_ids))}
