"""Counts tokens with tiktoken over the rank files that ship with the package: no network, no cache folder.

Used for estimates and by the OpenAI stand-in, never on the path of an ordinary call. Text is counted, not kept.
"""

import gzip
import hashlib
import threading
import tomllib
from base64 import b64decode
from importlib.resources import files
from typing import Final

import tiktoken

TEXT_CHARS_MAX: Final = 2_000_000
"""Beyond this a text is counted by its bytes: tiktoken needs 0.5 s for 1 MB in its worst case."""
BYTES_PER_TOKEN: Final = 4
PIECE_CHARS: Final = 50_000
"""A text is counted in pieces: in a run of 1,000,000 spaces tiktoken's pattern fails ("Max stack size exceeded"), and
the time for a run grows faster than its length. Where a piece ends, a token may count twice."""


class RanksDamaged(Exception):
    """A shipped rank file is not what it must be; the installation is broken."""


class Tokenizer:
    """Encodings by name, each built once, when first needed (about 0.7 s). Safe to share between threads."""

    def __init__(self) -> None:
        self._encodings: Final[dict[str, tiktoken.Encoding]] = {}
        self._building: Final = threading.Lock()

    def count(self, text: str, encoding: str) -> int:
        """Tokens of `text`, special tokens read as plain text. `encoding`: `o200k_base` or `cl100k_base`.

        Raises KeyError for another encoding, RanksDamaged when its file is damaged.
        """
        if len(text) > TEXT_CHARS_MAX:
            return -(-len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN)
        coder = self._encoding(encoding)
        pieces = (text[at : at + PIECE_CHARS] for at in range(0, len(text), PIECE_CHARS))
        return sum(len(coder.encode(piece, disallowed_special=())) for piece in pieces)

    def pieces(self, text: str, encoding: str) -> list[str]:
        """`text` cut at token borders; a character that spans tokens stays whole. Joined it is `text` again."""
        found: list[str] = []
        waiting = b""
        coder = self._encoding(encoding)
        for token in coder.encode(text, disallowed_special=()):
            waiting += coder.decode_single_token_bytes(token)
            try:
                found.append(waiting.decode("utf-8"))
            except UnicodeDecodeError:
                continue
            waiting = b""
        return found

    def _encoding(self, name: str) -> tiktoken.Encoding:
        known = self._encodings.get(name)
        if known is None:
            with self._building:
                known = self._encodings.get(name)
                if known is None:
                    known = self._encodings[name] = _build(name)
        return known


def _build(name: str) -> tiktoken.Encoding:
    folder = files("gateway.ranks")
    about = tomllib.loads((folder / "encodings.toml").read_text("utf-8"))[name]
    data = gzip.decompress((folder / f"{name}.tiktoken.gz").read_bytes())
    if hashlib.sha256(data).hexdigest() != about["sha256"]:
        raise RanksDamaged(f"{name}.tiktoken.gz does not have the SHA-256 that encodings.toml names")
    ranks = {b64decode(token): int(rank) for token, rank in (line.split() for line in data.splitlines())}
    return tiktoken.Encoding(
        name, pat_str=about["pattern"], mergeable_ranks=ranks, special_tokens=about["special_tokens"]
    )
