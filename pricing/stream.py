"""Meters a stream while it passes: which bytes may go on, and what they said about the cost. Pure, no I/O.

Bytes pass untouched and event by event (a client may act on a line before its blank line has come), with two
exceptions: the terminal event is held back until `release` (its SETTLE must be on disk before the client can see
the end), and, where the gateway alone asked for usage, the extra usage chunk and the `usage: null` of the others are
taken out by a byte search. The common chunk costs a few substring searches; only events that
carry a marker are parsed.
"""

import re
from typing import Final, Literal

from pricing.readers import chat, responses
from pricing.readers.body import Said
from pricing.readers.events import boundary, data_of, split_events

EVENT_BYTES_MAX: Final = 64 * 1024 * 1024
"""An event larger than this passes unmetered, and the call ends as an estimate."""
KEPT_BYTES_MAX: Final = 1024 * 1024
"""Raw stream bytes kept for a possible estimate before they are condensed to their visible text."""

_USAGE: Final = b'"usage"'
_NO_USAGE: Final = b'"usage":null'
"""As OpenAI writes it; any other spelling is found by the slower way."""
_USAGE_NULL: Final = re.compile(rb',\s*"usage"\s*:\s*null')
_USAGE_VALUE: Final = re.compile(rb'"usage"\s*:\s*\{')

Shape = Literal["chat", "responses"]


class StreamMeter:
    """One stream. `feed` every chunk, then `finish`; `release` gives the held end of the stream."""

    def __init__(self, shape: Shape, *, withhold: bool = False) -> None:
        self.said: Final = Said()
        self.terminal = False
        """Whether the terminal event has come; without it the call is an estimate."""
        self.failed = False
        """Whether the stream ended with an error event."""
        self.deltas = 0
        """Pieces of output seen so far: about one token each. Comments, keep-alives and events about items are none."""
        self.overflow = False
        """Whether an event was too large to be read, so that what came after it is not known."""
        self._shape: Final = shape
        self._count: Final = chat.count_deltas if shape == "chat" else responses.count_deltas
        self._withhold: Final = withhold
        self._buffer = bytearray()
        """Bytes of the event that is not complete yet."""
        self._held = bytearray()
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._text: list[str] = []

    def feed(self, chunk: bytes) -> bytes:
        """The bytes that may go to the client now."""
        if self.terminal:
            self._held += chunk
            return b""
        if self.overflow:
            return chunk
        buffer = self._buffer
        if buffer:
            waiting = len(buffer)
            buffer += chunk
            end = boundary(buffer, max(0, waiting - 3))
            region = bytes(buffer[:end])
            del buffer[:end]
        else:
            end = boundary(chunk, 0)
            region = chunk[:end]
            if end < len(chunk):
                buffer += chunk[end:]
        if end:
            return self._pass(region)
        if len(buffer) > EVENT_BYTES_MAX:
            self.overflow = True
            return self._take_buffer()
        return b""

    def finish(self) -> bytes:
        """At the end of the upstream body: what an incomplete last event still owes the client."""
        rest = self._take_buffer()
        passed = self._pass(rest) if rest else b""
        if self.terminal and self._shape == "responses" and self.said.usage is None:
            # A bare `error` may be followed by the `response.failed` that carries the usage.
            for raw in split_events(bytes(self._held)):
                self._read(raw)
        return passed

    def release(self) -> bytes:
        """The held end of the stream; to be sent only after SETTLE is on disk."""
        held = bytes(self._held)
        self._held.clear()
        return held

    def visible_text(self) -> str:
        """The output text seen so far, for an estimate."""
        self._condense()
        return "".join(self._text)

    def _take_buffer(self) -> bytes:
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def _pass(self, region: bytes) -> bytes:
        """What of these whole events goes on: all before the terminal one, less the usage nobody asked for."""
        at = self._observe(region)
        if at is not None:
            self._held += region[at:] + self._take_buffer()
            region = region[:at]
        if not self._withhold or _USAGE not in region:
            return region
        if region.count(_USAGE) == region.count(b"," + _NO_USAGE):
            return region.replace(b"," + _NO_USAGE, b"")
        if _USAGE_VALUE.search(region) is None:
            return _USAGE_NULL.sub(b"", region)
        return b"".join(_without_usage(raw) for raw in split_events(region))

    def _observe(self, region: bytes) -> int | None:
        """Reads what matters in whole events; where the terminal event begins in `region`, or None."""
        self.deltas += self._count(region)
        self._keep(region)
        if self.said.response_id is not None and not self._marked(region):
            return None
        at = 0
        for raw in split_events(region):
            if self._read(raw):
                self.terminal = True
                return at
            at += len(raw)
        return None

    def _marked(self, region: bytes) -> bool:
        if self._shape == "chat":
            return b"[DONE]" in region or b'"error"' in region or region.count(_USAGE) != region.count(_NO_USAGE)
        return (
            b"response.output_item" in region
            or b"response.completed" in region
            or b"response.incomplete" in region
            or b"response.failed" in region
            or b"response.cancelled" in region
            or b'"error"' in region
        )

    def _read(self, raw: bytes) -> bool:
        """Whether this raw event is the terminal one."""
        data = data_of(raw)
        if not data:
            return False
        if self._shape == "responses":
            kind = responses.read_event(data, self.said)
            self.failed = self.failed or kind in ("error", "response.failed")
            return kind is not None
        if data.startswith(chat.DONE):
            return True
        chunk = chat.read_chunk(data, self.said)
        self.failed = self.failed or (chunk is not None and chunk.failed)
        return False

    def _keep(self, region: bytes) -> None:
        self._kept.append(region)
        self._kept_bytes += len(region)
        if self._kept_bytes > KEPT_BYTES_MAX:
            self._condense()

    def _condense(self) -> None:
        read = chat.visible_text if self._shape == "chat" else responses.visible_text
        for region in self._kept:
            self._text.extend(text for raw in split_events(region) if (text := read(data_of(raw))))
        self._kept.clear()
        self._kept_bytes = 0


def _without_usage(raw: bytes) -> bytes:
    """One event as it would have been without `include_usage`."""
    data = data_of(raw)
    chunk = chat.read_chunk(data, Said())
    if chunk is None or chunk.usage is None:
        return _USAGE_NULL.sub(b"", raw)
    if chunk.empty:
        return b""
    return re.sub(rb',\s*"usage"\s*:\s*' + re.escape(chunk.usage), b"", raw, count=1)
