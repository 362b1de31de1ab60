"""What is known of an answer while and after it is relayed. Plain values; `relay` writes them."""

from aiohttp import web

from gateway.proxy.evidence import BodyEnd, StreamEnd
from pricing.readers.body import Said
from pricing.stream import StreamMeter


class RelayResult:
    """The result of reading one answer."""

    def __init__(self) -> None:
        self.said = Said()
        self.meter: StreamMeter | None = None
        """Of an event stream."""
        self.complete = False
        """Whether the answer ended as it must: the terminal event, or a whole body."""
        self.broken: str | None = None
        """Why the reading ended early: `upstream_cut`, `upstream_timeout`, `drain_limit`."""
        self.client_left = False
        self.deltas = 0
        """Pieces of output passed so far, about one token each."""
        self.first_byte_s: float | None = None
        self.heard_s = 0.0
        """When OpenAI was last heard of, or the client's slowness ended; both of the loop's clock, seconds."""
        self.client: web.StreamResponse | None = None
        self.ended = False
        """Whether the client has got the end of the answer."""
        self.coding: str | None = None
        """The Content-Encoding that nobody asked for, one of the readers' NAMES; None for plain bytes."""
        self.unread: str | None = None
        """Why what came could not be read: `coded_br`, `coded_damaged`, `coded_too_large`, …"""
        self.text: bytes = b""
        """The beginning of an answer that is not a stream, decoded: what an estimate counts."""
        self.is_error = False
        """Whether the answer is OpenAI's own error object, which says that the call did not run."""
        self.last: bytes = b""
        """The bytes that wait for SETTLE."""

    def describe_end(self, status: int) -> StreamEnd | BodyEnd:
        """How the answer, whose status was `status`, has ended."""
        meter, usage = self.meter, self.said.usage is not None
        if meter is None:
            return BodyEnd(status, usage, self.complete, self.is_error, self.broken, self.unread, self.client_left)
        return StreamEnd(
            usage, meter.terminal, meter.failed, meter.overflow, self.broken, self.unread, self.client_left
        )
