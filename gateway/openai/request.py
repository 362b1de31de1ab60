"""What the gateway must know of a request before it forwards it, read once, the bytes left as they are. Pure.

Refuses what it could not meter or whose owner it could not check: those parameters get 400
`unsupported_parameter`. Everything else, unknown fields included, passes through untouched.
"""

import re
from typing import Any, Final

import msgspec

from gateway.kit.errors import ApiError
from gateway.kit.json_structure import Bounds, TooMuchStructure, check_structure
from gateway.openai.families.catalogue import ENDPOINT_OF, FAMILY_OF
from gateway.openai.families.family import Family
from gateway.openai.json_fields import FIELDS_MAX, DuplicateField, Field, TooManyFields, fields
from gateway.openai.media import NONE as NO_MEDIA
from gateway.openai.media import Media, read_media
from gateway.openai.namespaces import SetField
from gateway.openai.references import check_item_types, read_references
from gateway.openai.request_errors import bad_request, duplicate, too_complex, unreadable, unsupported_error
from gateway.openai.tools import refuse_hosted_tools

_MEDIA_FIELDS: Final = ("messages", "input")
BOUNDS: Final = Bounds(objects=50_000, values=200_000, numbers=1_000_000)
"""Far above what OpenAI takes: 2,048 messages, 128 tools, 300,000 token ids (docs/limits.md)."""
PROMPTS_MAX: Final = 2048
"""Prompts of one legacy completion; each is answered on its own."""
CAP_MAX: Final = 1 << 53
"""No answer is this long; a larger figure could not be recorded."""
CHOICES_MAX: Final = 128
"""OpenAI's own limit; it refuses more."""
NAME_CHARS_MAX: Final = 256
"""Characters of a model or a service tier; longer ones are no names, and would only fill the ledger."""
_LIST: Final = msgspec.json.Decoder(list[msgspec.Raw])
_NULLS: Final = (b"null", b"false")
_DECODERS: Final[dict[type[Any], msgspec.json.Decoder[Any]]] = {
    kind: msgspec.json.Decoder(kind) for kind in (str, bool, int)
}


class References(msgspec.Struct, frozen=True):
    """What a request goes on from, which must be the caller's own."""

    previous_response_id: str | None = None
    compared_response_id: str | None = None
    """A response whose use of the prompt cache is to be compared with this one's."""
    item_ids: tuple[str, ...] = ()
    """Items of earlier answers that the request refers to instead of repeating them."""

    @property
    def read_too(self) -> bool:
        """Whether the model reads more than the request shows."""
        return self.previous_response_id is not None or bool(self.item_ids)


class Request(msgspec.Struct, frozen=True):
    """The facts of one metered request."""

    model: str
    body: bytes
    """What is sent upstream: the client's bytes, plus `include_usage` where the gateway had to ask for it, and the
    user's own fields where a setting wants them."""
    stream: bool
    withhold_usage: bool
    """Whether the client did not ask for the stream's usage, so that it must not see it."""
    service_tier: str | None
    output_cap: int | None
    choices: int
    text_bytes: int
    media: Media
    refers: References
    cache_ttl: str | None
    stored: bool
    """Whether the answer may be fetched again by its id (Responses only)."""


def read_request(endpoint: str, body: bytes, set_field: SetField | None = None) -> Request:
    """Raises ApiError (400) naming the field when the request is not a JSON object, repeats a field, or is refused.

    Its work is bounded by BOUNDS and by constants, whatever the body holds. `set_field`: makes fields that say whose
    call it is the user's own.
    """
    try:
        return _read_request(endpoint, body, set_field)
    except TooManyFields:
        raise _too_many_fields() from None


def read_counted(endpoint: str, body: bytes) -> References:
    """What a free call's body goes on from. Raises ApiError (400) as `read_request` does."""
    try:
        return _read_references(FAMILY_OF[endpoint], _top(body))
    except TooManyFields:
        raise _too_many_fields() from None


def _read_request(endpoint: str, body: bytes, set_field: SetField | None) -> Request:
    top, entry, family = _top(body), ENDPOINT_OF[endpoint], FAMILY_OF[endpoint]
    model = _name(top, "model")
    if not model:
        raise bad_request("you must provide a model parameter", "model", "missing_required_parameter")
    refers = _read_references(family, top)
    if set_field is not None:
        body = _set_user_fields(family.user_fields.get(endpoint, ()), top, body, set_field)
        top = fields(body)
    stream = bool(_typed_field(top, "stream", bool)) and entry.stream is not None
    ttl = "12h" if _asks_for_12h(body) else None
    withhold = False
    if stream and family.usage_on_request:
        body, withhold = _ask_for_usage(top, body)
    text_bytes, media = _sizes(family, top)
    return Request(
        model=model,
        body=body,
        stream=stream,
        withhold_usage=withhold,
        service_tier=_name(top, "service_tier"),
        output_cap=_cap(family, top),
        choices=_choices(family, top),
        text_bytes=text_bytes,
        media=media,
        refers=refers,
        cache_ttl=ttl,
        stored=entry.settles_later and _typed_field(top, "store", bool) is not False,
    )


def _too_many_fields() -> ApiError:
    return too_complex(f"an object with more than {FIELDS_MAX} fields, where this gateway must look at each")


def _top(body: bytes) -> dict[str, Field]:
    try:
        check_structure(body, BOUNDS)
        return fields(body)
    except TooMuchStructure as error:
        what = {"objects": "JSON objects", "values": "JSON values", "numbers": "numbers in lists"}[error.what]
        raise too_complex(f"more than {error.limit:,} {what}") from None
    except DuplicateField as error:
        raise duplicate(error.args[0]) from None
    except ValueError:
        raise unreadable() from None


def _choices(family: Family, top: dict[str, Field]) -> int:
    """How many answers the model writes at most."""
    if not family.choice_fields:
        return 1
    choices = 1
    for name in family.choice_fields:
        if name in top:
            choices = max(choices, _typed_field(top, name, int) or 1)
    # Each of several prompts is answered.
    return min(CHOICES_MAX, choices) * _prompts(top)


def _prompts(top: dict[str, Field]) -> int:
    prompt = top.get("prompt")
    if prompt is None or prompt.raw[:1] != b"[" or (b'"' not in prompt.raw and b"[" not in prompt.raw[1:]):
        return 1  # one text, or the token ids of one
    try:
        return min(PROMPTS_MAX, max(1, len(_LIST.decode(prompt.raw))))
    except (ValueError, RecursionError):
        return 1


def _sizes(family: Family, top: dict[str, Field]) -> tuple[int, Media]:
    """(bytes the model reads as text; pictures, files and sounds)."""
    size, media = 0, NO_MEDIA
    for name in family.text_fields:
        if name not in top:
            continue
        raw = top[name].raw
        size += len(raw)
        if name in _MEDIA_FIELDS:  # of which no family has two
            media = read_media(raw)
            size -= media.not_text
    return size, media


def _spelling_pattern(word: str) -> str:
    """A pattern for the JSON string `word`, whichever of its letters are written as escapes."""
    return '"' + "".join(rf"(?:{letter}|\\u(?i:{ord(letter):04x}))" for letter in word) + '"'


_TTL_12H: Final = re.compile((_spelling_pattern("ttl") + r"\s*:\s*" + _spelling_pattern("12h")).encode())


def _asks_for_12h(body: bytes) -> bool:
    """Whether a cache write of this request may be one for 12 hours, the dearer one (OpenAI's docs)."""
    escaped = b"\\u" in body
    return (escaped or (b'"12h"' in body and b"prompt_cache" in body)) and _TTL_12H.search(body) is not None


def _typed_field(top: dict[str, Field], name: str, kind: type[Any]) -> Any:
    """The field's value when it has the type `kind`, None when it is absent or null; else 400 naming it."""
    field = top.get(name)
    if field is None or field.raw == b"null":
        return None
    try:
        return _DECODERS[kind].decode(field.raw)
    except ValueError:
        if _is_no_utf8(field.raw):
            raise bad_request(f"Invalid '{name}': it is not UTF-8.", name, "invalid_value") from None
        words = {str: "a string", bool: "true or false", int: "an integer"}[kind]
        raise bad_request(f"Invalid type for '{name}': expected {words}.", name, "invalid_type") from None


def _is_no_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return True
    return False


def _name(top: dict[str, Field], name: str) -> str | None:
    value: str | None = _typed_field(top, name, str)
    if value is not None and len(value) > NAME_CHARS_MAX:
        message = f"Invalid '{name}': longer than {NAME_CHARS_MAX} characters."
        raise bad_request(message, name, "string_above_max_length")
    if value is not None and not value.isprintable():  # a NUL, above all, is not text to Postgres
        raise bad_request(f"Invalid '{name}': it holds a control character.", name, "invalid_value")
    return value


def _cap(family: Family, top: dict[str, Field]) -> int | None:
    caps = [_typed_field(top, name, int) for name in family.cap_fields]
    known = [cap for cap in caps if cap is not None and cap >= 0]
    # Of two the larger: which of them OpenAI goes by is its own business.
    return min(max(known), CAP_MAX) if known else family.cap_unless_set


def _read_references(family: Family, top: dict[str, Field]) -> References:
    """Refuses what cannot be metered or owned; what remains is the caller's to be checked."""
    for name, what in family.refused.items():
        if name in top and top[name].raw not in _NULLS:
            raise unsupported_error(name, what)
    for name, what in family.refused_if_true.items():
        if _typed_field(top, name, bool):
            raise unsupported_error(name, what)
    if family.voice_field is not None and family.voice_field in top:
        _refuse_custom_voice(family.voice_field, top[family.voice_field].raw)
    if "tools" in top and top["tools"].raw != b"null":
        refuse_hosted_tools(family, top["tools"].raw)
    item_ids: list[str] = []
    for name in family.referring_fields:
        if name in top:
            if family.has_items:
                check_item_types(name, top[name].raw)
            item_ids += read_references(family, name, top[name].raw)
    previous = None if family.previous_field is None else _name(top, family.previous_field)
    return References(previous, _compared_response(top), tuple(dict.fromkeys(item_ids)))


def _compared_response(top: dict[str, Field]) -> str | None:
    """`prompt_cache_options.comparison_response_id` (openai-python 3.54, `response_create_params.py`)."""
    options = top.get("prompt_cache_options")
    try:
        inner = fields(options.raw) if options is not None and options.raw[:1] == b"{" else {}
    except DuplicateField as error:
        raise duplicate(f"prompt_cache_options.{error.args[0]}") from None
    return _name(inner, "comparison_response_id")


def _refuse_custom_voice(name: str, raw: bytes) -> None:
    """`raw`: the value of the field `name`. A voice that somebody made is named by an object with its id (openai-python
    3.54, `chat_completion_audio_param.py`); OpenAI's own are strings."""
    try:
        voice = fields(raw).get("voice") if raw[:1] == b"{" else None
    except DuplicateField as error:
        raise duplicate(f"{name}.{error.args[0]}") from None
    if voice is not None and voice.raw[:1] == b"{":
        raise unsupported_error(f"{name}.voice", "custom voices")


def _set_user_fields(names: tuple[str, ...], top: dict[str, Field], body: bytes, set_field: SetField) -> bytes:
    """The body with these fields as `set_field` has them, and nothing else changed. What is not text stays: OpenAI
    refuses it."""
    edits: list[tuple[int, int, bytes]] = []
    start = body.index(b"{") + 1
    for name in names:
        given = top.get(name)
        if given is not None and given.raw[:1] != b'"' and given.raw != b"null":
            continue
        value = set_field(name, None if given is None or given.raw == b"null" else _DECODERS[str].decode(given.raw))
        if value is None:
            continue
        if given is None:
            edits.append((start, start, msgspec.json.encode(name) + b":" + msgspec.json.encode(value) + b","))
        else:
            edits.append((given.offset, given.offset + len(given.raw), msgspec.json.encode(value)))
    for begin, end, new in sorted(edits, reverse=True):
        body = body[:begin] + new + body[end:]
    return body


def _ask_for_usage(top: dict[str, Field], body: bytes) -> tuple[bytes, bool]:
    """(body that asks for the stream's usage, whether the client had not asked itself)."""
    options = top.get("stream_options")
    if options is None:
        at = body.index(b"{") + 1
        return body[:at] + b'"stream_options":{"include_usage":true},' + body[at:], True
    end = options.offset + len(options.raw)
    if options.raw == b"null":
        return body[: options.offset] + b'{"include_usage":true}' + body[end:], True
    try:
        inner = fields(options.raw)
    except DuplicateField as error:
        name = f"stream_options.{error.args[0]}"
        raise duplicate(name) from None
    except ValueError:
        message = "Invalid type for 'stream_options': expected an object."
        raise bad_request(message, "stream_options", "invalid_type") from None
    asked = inner.get("include_usage")
    if asked is not None and asked.raw == b"true":
        return body, False
    if asked is not None:
        if asked.raw not in (b"false", b"null"):
            name = "stream_options.include_usage"
            raise bad_request(f"Invalid type for '{name}': expected true or false.", name, "invalid_type")
        value_at = options.offset + asked.offset
        return body[:value_at] + b"true" + body[value_at + len(asked.raw) :], True
    comma = b"," if inner else b""
    at = options.offset + 1
    return body[:at] + b'"include_usage":true' + comma + body[at:], True
