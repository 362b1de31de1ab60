"""JSON as OpenAI writes it: compact in event streams, over many lines in whole answers. Pure."""

from typing import Any, Final

import msgspec

LF: Final = b"\n"
"""The end of a whole answer of chat, completions and embeddings; responses and moderations end without it."""

_NOISE: Final = "b0QrYneVA4VFoyL"
_NOISE_PERIOD: Final = 16


def encode_compact(value: Any) -> bytes:
    """Compact JSON."""
    return msgspec.json.encode(value)


def encode_indented(value: Any, end: bytes = b"", indent: int = 2) -> bytes:
    """JSON over many lines: so are 2,359 of the 2,373 whole answers in recordings of 2023 to 2026."""
    return msgspec.json.format(encode_compact(value), indent=indent) + end


def obfuscation(text: str) -> str:
    """The padding of an event with `text`: 0 to 15 characters, which hide the text's length."""
    return _NOISE[: (_NOISE_PERIOD - len(text)) % _NOISE_PERIOD]


def data_event(value: Any) -> bytes:
    """An event without a name, as chat and completions stream it."""
    return b"data: " + encode_compact(value) + b"\n\n"
