"""Decodes a copy of an answer that came with a Content-Encoding although identity was asked for. Pure, bounded.

Recordings of the real API made by clients that allow it are gzip and br; a server in between may code what it likes.
What cannot be decoded is named, and the call is an estimate.
"""

import zlib
from collections.abc import Iterator
from typing import Final

DECODED_BYTES_MAX: Final = 64 * 1024 * 1024
"""Beyond this nothing more is decoded: a small answer can unfold to any size."""
PIECE_BYTES: Final = 1024 * 1024
NAMES: Final = ("gzip", "deflate", "br", "zstd", "other")
_HEADER_BYTES: Final = 2
_DEFLATED: Final = 8
"""The method in a zlib header, whose two bytes are also a multiple of 31 (RFC 1950)."""
_GZIP_OR_ZLIB: Final = 32 + zlib.MAX_WBITS


def coding_of(content_encoding: str | None) -> str | None:
    """The name of the coding, one of NAMES; None when the bytes are what they seem."""
    if content_encoding is None:
        return None
    name = content_encoding.strip().lower().removeprefix("x-")
    if name in ("", "identity"):
        return None
    return name if name in NAMES else "other"


class Decoder:
    """One answer's. `decode` every piece."""

    def __init__(self, coding: str) -> None:
        """`coding`: one of NAMES."""
        self.coding: Final = coding
        self.failure: str | None = None if coding in ("gzip", "deflate") else "unknown"
        """Why what follows cannot be read: `unknown`, `damaged`, `too_large`."""
        self._inflate: zlib._Decompress | None = None
        self._size = 0
        self._first = b""
        """What came of a header that is not whole yet."""

    @property
    def problem(self) -> str | None:
        """What kept the answer from being read, for its row; None while it can be."""
        if self.failure is None:
            return None
        return f"coded_{self.coding if self.failure == 'unknown' else self.failure}"

    def decode(self, piece: bytes) -> Iterator[bytes]:
        """What these bytes stand for, in pieces of PIECE_BYTES at most."""
        if self._inflate is None:
            self._first += piece
            if len(self._first) < _HEADER_BYTES:
                return
            piece, self._first = self._first, b""
        while piece and self.failure is None:
            inflate = self._inflate = self._inflate or self._begin(piece)
            try:
                decoded = inflate.decompress(piece, PIECE_BYTES)
            except zlib.error:
                self.failure = "damaged"
                return
            self._size += len(decoded)
            if self._size > DECODED_BYTES_MAX:
                self.failure = "too_large"
                return
            if decoded:
                yield decoded
            piece = inflate.unconsumed_tail
            if inflate.eof:  # gzip may go on with another member
                piece, self._inflate = inflate.unused_data, None
                if len(piece) < _HEADER_BYTES:
                    piece, self._first = b"", piece

    def _begin(self, piece: bytes) -> "zlib._Decompress":
        """Some servers send deflate without the zlib header that the standard wants (RFC 9110 8.4.1.2)."""
        bare = self.coding == "deflate" and (piece[0] & 0x0F != _DEFLATED or (piece[0] << 8 | piece[1]) % 31 != 0)
        return zlib.decompressobj(-zlib.MAX_WBITS if bare else _GZIP_OR_ZLIB)
