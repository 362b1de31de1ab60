"""The format of a journal record on disk: `<crc32 hex> <kind> <payload JSON>\n`. Pure; writer.py and reader.py do I/O.

Self-delimiting and checksummed, so a torn or corrupt line costs that record only.
"""

import re
from typing import Final, NamedTuple
from zlib import crc32

OPEN: Final = b"O"
NOTE: Final = b"N"
SETTLE: Final = b"S"
BOOT: Final = b"H"
"""First record of every segment; its payload is the writer's boot id as a JSON string."""


_HEAD: Final = re.compile(rb'[0-9a-f]{8} ([!-~]) (?:\{"id":"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")?')


def frame(kind: bytes, payload: bytes) -> bytes:
    """One journal line, whatever `payload` is: its line feeds become spaces, which are the same to JSON."""
    payload = payload.replace(b"\n", b" ")
    return b"%08x %b %b\n" % (crc32(payload, crc32(kind)), kind, payload)


def unframe(line: bytes) -> tuple[bytes, bytes] | None:
    """(kind, payload) of one line without its newline, or None when it is torn or corrupt."""
    if len(line) < 12 or line[8:9] != b" " or line[10:11] != b" ":
        return None
    kind, payload = line[9:10], line[11:]
    return (kind, payload) if line[:8] == b"%08x" % crc32(payload, crc32(kind)) else None


class Broken(NamedTuple):
    """What a line that does not read still shows of itself."""

    kind: bytes
    """Empty where not even that is left."""
    event_id: str | None


def describe_broken(line: bytes) -> Broken:
    """What can be told of a line for which `unframe` gives None. Nothing vouches for it."""
    head = _HEAD.match(line)
    if head is None:
        return Broken(b"", None)
    return Broken(head[1], None if head[2] is None else head[2].decode("ascii"))


def id_of(payload: bytes) -> str:
    """The event id of an OPEN, NOTE or SETTLE payload, without decoding it: `id` is their first field."""
    if payload[:7] != b'{"id":"' or payload[43:44] != b'"':
        raise ValueError("a journal payload begins with its id")
    return payload[7:43].decode("ascii")
