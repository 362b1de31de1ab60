"""A stream that is coded: a decoded copy is metered, the client gets the bytes as they are. Pure.

Usage that only the gateway asked for cannot be taken out of coded bytes, so the client sees it too.
"""

from typing import Final

from pricing.readers.coding import Decoder
from pricing.stream import StreamMeter


class CodedStream:
    """Used as a StreamMeter is: `feed` every chunk, then `finish`, then `release`."""

    def __init__(self, meter: StreamMeter, decoder: Decoder) -> None:
        self._meter: Final = meter
        self._decoder: Final = decoder
        self._held = bytearray()

    def feed(self, chunk: bytes) -> bytes:
        """The bytes that may go to the client now: all until the terminal event is seen."""
        if not self._meter.terminal:
            for piece in self._decoder.decode(chunk):
                self._meter.feed(piece)
        if not self._meter.terminal:
            if self._decoder.failure is None:
                return chunk
            # Where the end is, is unknown, so the last chunk always waits.
            ready, self._held = bytes(self._held), bytearray(chunk)
            return ready
        self._held += chunk
        return b""

    def finish(self) -> bytes:
        """At the end of the upstream body; nothing is owed to the client."""
        self._meter.finish()
        self._meter.release()
        return b""

    def release(self) -> bytes:
        """The held end of the stream; to be sent only after SETTLE is on disk."""
        held = bytes(self._held)
        self._held.clear()
        return held
