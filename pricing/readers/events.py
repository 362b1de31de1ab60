"""Splits server-sent events (WHATWG HTML §9.2.6) out of bytes. Pure; knows nothing of what the events mean.

Bytes are split, never text: `str.splitlines` would also split at U+2028, which JSON strings may contain.
"""

from codecs import BOM_UTF8
from collections.abc import Iterator


def boundary(buffer: bytes | bytearray, start: int) -> int:
    """Just behind the last blank line in `buffer` from `start` on, or 0 when there is none.

    `start`: 3 bytes before what is new, so that a blank line in pieces is found and nothing is searched twice.
    """
    at = buffer.rfind(b"\n\n", start)
    end = at + 2 if at >= 0 else 0
    if buffer.find(b"\r", start) >= 0:
        for blank in (b"\n\r\n", b"\r\r"):
            at = buffer.rfind(blank, start)
            if at >= 0:
                end = max(end, at + len(blank))
    return end


def split_events(region: bytes) -> Iterator[bytes]:
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


def data_of(raw: bytes) -> bytes:
    """The joined `data:` lines of one raw event; comments and other fields are dropped, as the standard says.

    So is a byte order mark, which may stand before the first event.
    """
    raw = raw.removeprefix(BOM_UTF8)
    lines = raw.split(b"\n") if b"\r" not in raw else [line.rstrip(b"\r\n") for line in _lines(raw)]
    return b"\n".join([line[6 if line[5:6] == b" " else 5 :] for line in lines if line.startswith(b"data:")])
