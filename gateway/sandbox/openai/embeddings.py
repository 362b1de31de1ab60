"""Embeddings of the OpenAI stand-in: the same unit vector for the same text. Pure."""

from array import array
from base64 import b64encode
from hashlib import shake_128
from math import sqrt
from struct import pack
from typing import Any, Final

from gateway.sandbox.openai.errors import invalid, missing
from gateway.sandbox.openai.models import Served
from gateway.sandbox.openai.printing import LF, encode_compact, encode_indented
from gateway.sandbox.openai.tokens import Counter
from gateway.sandbox.openai.usage import OMIT

INPUTS_MAX: Final = 2048


def inputs_of(fields: dict[str, Any], counter: Counter, encoding: str) -> tuple[list[str], int]:
    """(one text per vector, tokens of all). Inputs are texts or arrays of token ids. Raises OpenAIError (400)."""
    given = fields.get("input")
    if given is None:
        raise missing("input")
    inputs = given if isinstance(given, list) and not _is_tokens(given) else [given]
    if not 1 <= len(inputs) <= INPUTS_MAX or any(item in ("", []) for item in inputs):
        raise invalid("'$.input' is invalid: it must not be empty.", "input", "invalid_input")
    texts: list[str] = []
    tokens = 0
    for item in inputs:
        if isinstance(item, str):
            tokens += counter.count(item, encoding)
            texts.append(item)
        elif isinstance(item, list) and _is_tokens(item):
            tokens += len(item)
            texts.append(",".join(map(str, item)))
        else:
            raise invalid("'$.input' is invalid: strings or arrays of token ids are expected.", "input", "invalid_type")
    return texts, tokens


def _is_tokens(value: list[Any]) -> bool:
    return bool(value) and all(type(token) is int for token in value)


def embeddings_body(fields: dict[str, Any], served: Served, texts: list[str], name: str, usage: Any) -> bytes:
    """The answer, with vectors as numbers or as base64 of little-endian 32-bit floats. Raises OpenAIError (400).

    Recordings of 2026 print base64 over many lines, and numbers compactly with `embedding` before `index`.
    """
    length = fields.get("dimensions") or served.dimensions
    if not isinstance(length, int) or not 1 <= length <= served.dimensions:
        message = f"Invalid 'dimensions': expected an integer from 1 to {served.dimensions}."
        raise invalid(message, "dimensions", "invalid_value")
    base64 = fields.get("encoding_format") == "base64"
    data = []
    for index, text in enumerate(texts):
        numbers = vector(text, length)
        embedding: Any = b64encode(pack(f"<{length}f", *numbers)).decode() if base64 else numbers
        item = {"object": "embedding", "index": index, "embedding": embedding}
        data.append(item if base64 else {"object": "embedding", "embedding": embedding, "index": index})
    body: dict[str, Any] = {"object": "list", "data": data, "model": name}
    if usage != OMIT:
        body["usage"] = usage
    return encode_indented(body, LF) if base64 else encode_compact(body) + LF


def vector(text: str, length: int) -> list[float]:
    """`length` numbers whose squares add up to one."""
    noise = array("h", shake_128(text.encode("utf-8", "surrogatepass")).digest(2 * length))
    norm = sqrt(sum(number * number for number in noise)) or 1.0
    return [round(number / norm, 9) for number in noise]
