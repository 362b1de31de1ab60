"""From OpenAI's nested usage counts to disjoint quantities that may be priced. Pure; never guesses.

Cached, cache-write and audio tokens are inside the input count, reasoning and audio inside the output
(OpenAI's docs). Whatever makes no sense, or is not known to be free, is an error that
names its field: unpriced and alarmed is right, a silently ignored quantity is not.
"""

import json
import re
from typing import Any, Final, Literal, NamedTuple, NoReturn

import msgspec

from pricing.readers.body import read_fields

TOKENS_MAX: Final = 10**12
"""No call has this many tokens; a larger count is nonsense, not a price."""

Output = Literal["said", "in_total", "none"]
"""A missing count of the output: an error (`said`), nothing when the total says so too (`in_total`: legacy completions
leave it out when the answer is empty), or nothing (`none`: embeddings have no output)."""

_CHAT: Final[dict[str, Any]] = {
    "prompt_tokens": None,
    "completion_tokens": None,
    "total_tokens": None,
    "prompt_tokens_details": {
        "cached_tokens": None,
        "cache_write_tokens": None,
        "audio_tokens": None,
        "image_tokens": None,
        "text_tokens": None,
    },
    "completion_tokens_details": {
        "reasoning_tokens": None,
        "audio_tokens": None,
        "text_tokens": None,
        "accepted_prediction_tokens": None,
        "rejected_prediction_tokens": None,
    },
}
_RESPONSES: Final[dict[str, Any]] = {
    "input_tokens": None,
    "output_tokens": None,
    "total_tokens": None,
    "input_tokens_details": {
        "cached_tokens": None,
        "cache_write_tokens": None,
        "cache_write_tokens_details": {"ttl_30m_tokens": None, "ttl_12h_tokens": None},
        "audio_tokens": None,
        "image_tokens": None,
        "text_tokens": None,
    },
    "output_tokens_details": {"reasoning_tokens": None, "audio_tokens": None, "text_tokens": None},
}
_EMPTY: Final[dict[str, Any]] = {}
_WHOLE_NUMBER: Final = re.compile(rb"0|[1-9][0-9]{0,12}")


class UsageError(Exception):
    """The usage block makes no sense; the message names the fields, in characters that any record can hold."""

    def __init__(self, message: str) -> None:
        super().__init__("".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in message))


class Quantities(msgspec.Struct, frozen=True):
    """What a call used, as disjoint classes. Tokens; `classes` leaves out what is zero."""

    classes: dict[str, int]
    prompt_tokens: int
    completion_tokens: int | None
    total_tokens: int


class TokenCounts(NamedTuple):
    """The counts that a usage block states for the whole call, tokens; None where it states none."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None


def read_counts(raw: bytes) -> TokenCounts:
    """What of a usage block can be reported when it cannot be priced. Never raises.

    Whatever else is in the block hides no count: only the members for the whole call are looked at. Counts that
    are no whole numbers, or contradict each other, are none.
    """
    fields = {name: value for name, value in (read_fields(raw) or {}).items() if value != b"null"}
    if "input_tokens" in fields and "prompt_tokens" in fields:
        return TokenCounts()
    names = ("input_tokens", "output_tokens") if "input_tokens" in fields else ("prompt_tokens", "completion_tokens")
    found: dict[str, int] = {}
    for name in (*names, "total_tokens"):
        value = fields.get(name)
        if value is not None:
            if _WHOLE_NUMBER.fullmatch(value) is None or int(value) > TOKENS_MAX:
                return TokenCounts()
            found[name] = int(value)
    total_in, total_out = found.get(names[0]), found.get(names[1])
    if total_in is None:
        return TokenCounts()
    total = total_in + (total_out or 0)
    return TokenCounts(total_in, total_out, total) if found.get("total_tokens", total) == total else TokenCounts()


def decode(raw: bytes) -> dict[str, Any]:
    """The JSON object in `raw`. UsageError when there is none (`null` means that OpenAI never said)."""
    try:
        usage = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        usage = _decode_odd(raw)
    if usage is None:
        raise UsageError("usage is missing")
    if not isinstance(usage, dict):
        raise UsageError("usage is not an object")
    return usage


def _decode_odd(raw: bytes) -> Any:
    """What msgspec refuses for a string or a number in it (half a surrogate pair, 1e999) may have good counts."""
    try:
        return json.loads(raw.decode("utf-8", "replace"), strict=False, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"usage is not JSON: {error}") from error


def _refuse_constant(_name: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not numbers")


def decompose(usage: dict[str, Any], *, cache_ttl: str | None = None, output: Output = "said") -> Quantities:
    """Disjoint classes of one usage block in the shape of chat or of responses.

    `cache_ttl` ("30m" or "12h") prices cache writes that have no split of their own (default 30m).
    `output` says what a missing count of the output means.
    """
    if "input_tokens" in usage:
        if "prompt_tokens" in usage:
            raise UsageError("usage has both input_tokens and prompt_tokens")
        shape, in_name, out_name = _RESPONSES, "input_tokens", "output_tokens"
    else:
        shape, in_name, out_name = _CHAT, "prompt_tokens", "completion_tokens"
    if not usage.keys() <= shape.keys():
        _refuse_unknown(usage, shape, "")
    total_in = _count(usage, in_name, "")
    total_out = _count(usage, out_name, "")
    if total_in is None:
        raise UsageError(f"{in_name} is missing")
    total = _count(usage, "total_tokens", "")
    if total_out is None and output == "in_total" and total == total_in:
        total_out = 0
    if total_out is None and output != "none":
        raise UsageError(f"{out_name} is missing")
    if total is None:
        total = total_in + (total_out or 0)
    elif total != total_in + (total_out or 0):
        raise UsageError(f"total_tokens is {total}, but {in_name} + {out_name} is {total_in + (total_out or 0)}")
    classes: dict[str, int] = {}
    _input_classes(classes, usage, shape, in_name, total_in, cache_ttl)
    if total_out is not None:
        _output_classes(classes, usage, shape, out_name, total_out)
    return Quantities(classes, total_in, total_out, total)


def _input_classes(
    classes: dict[str, int], usage: dict[str, Any], shape: dict[str, Any], whole: str, total: int, cache_ttl: str | None
) -> None:
    path = f"{whole}_details"
    details = _object(usage, path, shape, "")
    if not details:
        if total:
            classes["input"] = total
        return
    cached = _count(details, "cached_tokens", path) or 0
    audio = _count(details, "audio_tokens", path) or 0
    image = _count(details, "image_tokens", path) or 0
    text = _count(details, "text_tokens", path) or 0
    short, long = _cache_writes(details, shape[path], path, cache_ttl)
    if text + audio + image > total:
        raise UsageError(
            f"{path}.text_tokens + audio_tokens + image_tokens is {text + audio + image}, above {whole} {total}"
        )
    if cached + short + long > total:
        raise UsageError(
            f"{path}.cached_tokens + cache_write_tokens is {cached + short + long}, above {whole} {total}:"
            f" uncached input would be negative"
        )
    # Image tokens cost what text tokens cost on these models, cached or not, so they need no class.
    plain = total - cached - short - long - audio
    if plain < 0:
        raise UsageError(
            f"{path}.cached_tokens + cache_write_tokens + audio_tokens is {total - plain}, above {whole} {total}:"
            f" it is not told how many cached tokens are audio"
        )
    found = (
        ("input", plain),
        ("cached", cached),
        ("write_30m", short),
        ("write_12h", long),
        ("audio_input", audio),
    )
    classes.update((class_, count) for class_, count in found if count)


def _cache_writes(details: dict[str, Any], shape: dict[str, Any], path: str, cache_ttl: str | None) -> tuple[int, int]:
    """(30-minute, 12-hour) cache-write tokens. What OpenAI does not split goes to the TTL that was asked for."""
    whole = _count(details, "cache_write_tokens", path)
    split = _object(details, "cache_write_tokens_details", shape, path)
    inner = f"{path}.cache_write_tokens_details"
    short = (_count(split, "ttl_30m_tokens", inner) or 0) if split else 0
    long = (_count(split, "ttl_12h_tokens", inner) or 0) if split else 0
    if whole is None:
        return short, long
    rest = whole - short - long
    if rest < 0:
        raise UsageError(
            f"{inner}: ttl_30m_tokens + ttl_12h_tokens is {short + long}, above cache_write_tokens {whole}"
        )
    return (short, long + rest) if cache_ttl == "12h" else (short + rest, long)


def _output_classes(
    classes: dict[str, int], usage: dict[str, Any], shape: dict[str, Any], whole: str, total: int
) -> None:
    path = f"{whole}_details"
    details = _object(usage, path, shape, "")
    audio = 0
    if details:
        audio = _count(details, "audio_tokens", path) or 0
        text = _count(details, "text_tokens", path) or 0
        reasoning = _count(details, "reasoning_tokens", path) or 0
        accepted = _count(details, "accepted_prediction_tokens", path) or 0
        rejected = _count(details, "rejected_prediction_tokens", path) or 0
        for names, part in (
            ("audio_tokens + text_tokens", audio + text),
            ("audio_tokens + reasoning_tokens", audio + reasoning),
            ("accepted_prediction_tokens + rejected_prediction_tokens", accepted + rejected),
        ):
            if part > total:
                raise UsageError(f"{path}.{names} is {part}, above {whole} {total}")
    if audio:
        classes["audio_output"] = audio
    if total > audio:
        classes["output"] = total - audio


def _count(holder: dict[str, Any], name: str, path: str) -> int | None:
    value = holder.get(name)
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= TOKENS_MAX:
        raise UsageError(f"{path + '.' if path else ''}{name} is {str(value)[:40]}, not a count of tokens")
    return value


def _object(holder: dict[str, Any], name: str, shape: dict[str, Any], path: str) -> dict[str, Any]:
    value = holder.get(name)
    if value is None:
        return _EMPTY
    full = f"{path}.{name}" if path else name
    if type(value) is not dict:
        raise UsageError(f"{full} is not an object")
    if not value.keys() <= shape[name].keys():
        _refuse_unknown(value, shape[name], full)
    return value


def _refuse_unknown(holder: dict[str, Any], shape: dict[str, Any], path: str) -> None:
    for name, value in holder.items():
        if name not in shape:
            found = nonzero_number(value, f"{path}.{name}" if path else name)
            if found is not None:
                raise UsageError(f"{found} is not a known usage field, so what it costs is unknown")


def nonzero_number(value: object, path: str) -> str | None:
    """Where a number other than zero lies in an unknown JSON value, or None."""
    todo = [(path, value)]
    while todo:
        where, found = todo.pop()
        if isinstance(found, dict):
            todo += [(f"{where}.{name}"[:200], child) for name, child in found.items()]
        elif isinstance(found, list):
            todo += [(f"{where}[{index}]"[:200], child) for index, child in enumerate(found)]
        elif isinstance(found, int | float) and not isinstance(found, bool) and found:
            return where
    return None
