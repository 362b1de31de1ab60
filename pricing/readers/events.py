"""Splits server-sent events (WHATWG HTML §9.2.6) out of bytes. Pure; knows nothing of what the events mean.

Bytes are split, never text: `str.splitlines` would also split at U+2028, which JSON strings may contain.
"""

from collections.abc import Iterator
from typing import NamedTuple


class Event(NamedTuple):
    """One event: its `event:` name (empty when there is none) and its joined `data:` lines."""

    name: bytes
    data: bytes


def boundary(buffer: bytes | bytearray, start: int) -> int:
    """Just behind the last blank line in `buffer` found from `start` on, or 0 when there is none."""
    end = buffer.rfind(b"\n\n", start) + 2
    end = end if end > 1 else 0
    if b"\r" in buffer:
        crlf = buffer.rfind(b"\n\r\n", start) + 3
        cr = buffer.rfind(b"\r\r", start) + 2
        end = max(end, crlf if crlf > 2 else 0, cr if cr > 1 else 0)
    return end


def split(region: bytes) -> Iterator[bytes]:
    """The raw events of `region`, each with its closing blank line; `b"".join(split(x)) == x`."""
    if b"\r" not in region:
        start = 0
        while (end := region.find(b"\n\n", start)) >= 0:
            yield region[start : end + 2]
            start = end + 2
        if start < len(region):
            yield region[start:]
        return
    event = b""
    for line in _lines(region):
        event += line
        if line in (b"\n", b"\r\n", b"\r"):
            yield event
            event = b""
    if event:
        yield event


def _lines(region: bytes) -> Iterator[bytes]:
    """Lines with their ends; an end is LF, CRLF or a lone CR."""
    start = 0
    while start < len(region):
        lf, cr = region.find(b"\n", start), region.find(b"\r", start)
        ends = [at for at in (lf, cr) if at >= 0]
        if not ends:
            yield region[start:]
            return
        end = min(ends) + 1
        if region[end - 1 : end + 1] == b"\r\n":
            end += 1
        yield region[start:end]
        start = end


def parse(raw: bytes) -> Event:
    """One raw event; comments and other fields are dropped, as the standard says."""
    name, data = b"", []
    for line in raw.split(b"\n") if b"\r" not in raw else (part.rstrip(b"\r\n") for part in _lines(raw)):
        if line.startswith(b"data:"):
            data.append(line[6:] if line[5:6] == b" " else line[5:])
        elif line.startswith(b"event:"):
            name = line[7:] if line[6:7] == b" " else line[6:]
    return Event(name, b"\n".join(data))
