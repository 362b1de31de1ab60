"""`gateway price`: JSON lines in, priced JSON lines out. No database, no network.

The arithmetic belongs to pricing/; this file only checks each field of a line and writes the answer.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final, TypeVar

import msgspec

from gateway.openai.families.catalogue import price_family
from pricing import Book, PriceRequest, nano_text, price

_T = TypeVar("_T")
_FIELDS: Final = frozenset(
    (
        "id",
        "endpoint",
        "model",
        "service_tier",
        "at",
        "usage",
        "batch",
        "region",
        "cache_ttl",
        "completion_window",
        "response",
    )
)
_NULL: Final = msgspec.Raw(b"null")
_decoder: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encoder: Final = msgspec.json.Encoder()


class _BadLine(Exception):
    """The line is not a request; the message says which field is wrong."""


def run(lines: Iterable[bytes | str], write: Callable[[str], None], book: Book) -> int:
    """Price every line; blank lines are skipped. Writes one JSON line for each.

    Returns the exit status: 0, or 1 when at least one line was not a usable request.
    """
    status = 0
    for line in lines:
        if not line.strip():
            continue
        answer, usable = _answer(line, book)
        if not usable:
            status = 1
        write(_encoder.encode(answer).decode() + "\n")
    return status


def _answer(line: bytes | str, book: Book) -> tuple[dict[str, object], bool]:
    """(what to write, whether the line was usable)."""
    fields: dict[str, msgspec.Raw] = {}
    try:
        fields = _read_line(line)
        request = _request(fields)
    except _BadLine as error:
        return {"id": fields.get("id", _NULL), "error": str(error)}, False
    priced = price(book, request)
    unknown = sorted(fields.keys() - _FIELDS)
    notices = [f"field {name[:80]!r} is not known and was ignored" for name in unknown]
    return {
        "id": fields.get("id", _NULL),
        "cost_usd": None if priced.cost_nano is None else nano_text(priced.cost_nano),
        "evidence": priced.evidence,
        "price_version": priced.price_version,
        "lines": priced.lines,
        "problems": [*priced.problems, *notices],
    }, True


def _read_line(line: bytes | str) -> dict[str, msgspec.Raw]:
    try:
        text = line if isinstance(line, str) else line.decode()
        return _decoder.decode(text.encode())
    except UnicodeError as error:
        raise _BadLine("the line is not UTF-8") from error
    except msgspec.ValidationError as error:
        raise _BadLine("the line is not a JSON object") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise _BadLine(f"the line is not JSON: {error}") from error


def _request(fields: dict[str, msgspec.Raw]) -> PriceRequest:
    at = _field(fields, "at", datetime, "an RFC 3339 time")
    if at.utcoffset() is None:
        raise _BadLine("at must be an RFC 3339 time with an offset (Z or +00:00)")
    usage = _field(fields, "usage", msgspec.Raw, "an object")
    if bytes(usage)[:1] not in (b"{", b"n"):
        raise _BadLine("usage must be an object")
    response = fields.get("response", _NULL)
    if bytes(response)[:1] not in (b"{", b"n"):
        raise _BadLine("response must be an object or null")
    return PriceRequest(
        endpoint=price_family(_field(fields, "endpoint", str, "a string")),
        model=_field(fields, "model", str, "a string"),
        at=at,
        usage=bytes(usage),
        service_tier=_optional(fields, "service_tier", str, "a string or null"),
        batch=_optional(fields, "batch", bool, "true or false") or False,
        region=_optional(fields, "region", str, "a string or null"),
        cache_ttl=_optional(fields, "cache_ttl", str, "a string or null"),
        completion_window=_optional(fields, "completion_window", str, "a string or null"),
        response=None if bytes(response) == b"null" else bytes(response),
    )


def _field(fields: dict[str, msgspec.Raw], name: str, type_: type[_T], wanted: str) -> _T:
    raw = fields.get(name)
    if raw is None:
        raise _BadLine(f"{name} is missing")
    try:
        return msgspec.json.decode(raw, type=type_)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise _BadLine(f"{name} must be {wanted}") from error


def _optional(fields: dict[str, msgspec.Raw], name: str, type_: type[_T], wanted: str) -> _T | None:
    if bytes(fields.get(name, _NULL)) == b"null":
        return None
    return _field(fields, name, type_, wanted)
