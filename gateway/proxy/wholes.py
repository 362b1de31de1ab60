"""Reads usage, id and model from a whole answer: buffered, or in pieces as it passes; decoded where it is encoded."""

from gateway.proxy.relay_result import RelayResult
from pricing.readers.body import object_of, read_fields, read_scan, said_of
from pricing.readers.coding import Decoder
from pricing.readers.scan import Scan


def read_whole(result: RelayResult, decoder: Decoder | None) -> None:
    """Of a body that was kept; it may have broken off."""
    body = result.last
    if decoder is not None:
        body = b"".join(decoder.decode(body))
        result.unread = decoder.problem
    result.text = body
    result.complete = result.broken is None
    fields = read_fields(body) if result.complete else None
    if fields is not None:
        result.said = said_of(fields)
        result.is_error = object_of(fields.get("error")) is not None
    else:  # broken off, or no JSON to its end: what has come whole is said all the same
        scan = Scan()
        scan.feed(body)
        result.said = read_scan(scan)


def feed_large(result: RelayResult, scan: Scan, piece: bytes, decoder: Decoder | None) -> None:
    """The next piece of a body that passes by. Its beginning is kept for an estimate."""
    for plain in (piece,) if decoder is None else decoder.decode(piece):
        scan.feed(plain)
        result.text = result.text or plain


def read_large(result: RelayResult, scan: Scan, decoder: Decoder | None) -> None:
    """What a body that passes by has said so far."""
    result.said = read_scan(scan)
    result.is_error = object_of(scan.members.get("error")) is not None
    result.unread = None if decoder is None else decoder.problem
