"""What the gateway must know of a request before it forwards it, read once, the bytes left as they are. Pure.

Refuses what it could not meter or whose owner it could not check ("Until its issue is done" in DESIGN): those
parameters get 400 `unsupported_parameter`. Everything else, unknown fields included, passes through untouched.
"""

import re
from typing import Any, Final

import msgspec

from gateway.core.errors import ApiError
from gateway.core.json_fields import DuplicateField, Field, fields

_MEDIA: Final = re.compile(rb'"data:[a-zA-Z0-9.+/\-]+;base64,[^"]*"|"(?:data|file_data)"\s*:\s*"[A-Za-z0-9+/=]{256,}"')
_TEXT_FIELDS: Final = {
    "chat": ("messages", "tools", "functions", "response_format", "prediction"),
    "responses": ("input", "instructions", "tools", "text"),
    "embeddings": ("input",),
}
_CAP_FIELDS: Final = {
    "chat": ("max_completion_tokens", "max_tokens"),
    "responses": ("max_output_tokens",),
    "embeddings": (),
}
_REFUSED: Final = {
    "chat": {"web_search_options": "hosted web search"},
    "responses": {
        "conversation": "conversations",
        "prompt": "stored prompts",
        "background_options": "background responses",
        "multi_agent": "multi-agent responses",
    },
    "embeddings": {},
}
_NULLS: Final = (b"null", b"false")
_REFERENCES: Final = {
    "chat": (b"file_id", b'"audio"', b"\\u"),
    "responses": (b"file_id", b"item_reference", b'"id"', b"\\u"),
    "embeddings": (),
}
"""Bytes without which a body cannot name an object of somebody else's; only bodies with one are walked."""


class Request(msgspec.Struct, frozen=True):
    """The facts of one metered request."""

    model: str
    body: bytes
    """What is sent upstream: the client's bytes, plus `include_usage` where the gateway had to ask for it."""
    stream: bool
    withhold_usage: bool
    """Whether the client did not ask for the stream's usage, so that it must not see it."""
    service_tier: str | None
    output_cap: int | None
    choices: int
    text_bytes: int
    media_parts: int
    previous_response_id: str | None
    cache_ttl: str | None
    stored: bool
    """Whether the answer may be fetched again by its id (Responses only)."""


def _bad(message: str, param: str | None = None, code: str = "invalid_request_error") -> ApiError:
    return ApiError(400, code, message, param=param)


def read_request(endpoint: str, body: bytes) -> Request:
    """Raises ApiError (400) naming the field when the request is no JSON object, repeats a field, or is refused."""
    try:
        top = fields(body)
    except DuplicateField as error:
        raise _bad(f"The field '{error.args[0]}' is given twice.", error.args[0], "duplicate_field") from None
    except ValueError:
        raise _bad("We could not parse the JSON body of your request: it must be one JSON object.") from None
    model = _typed(top, "model", str)
    if not model:
        raise _bad("you must provide a model parameter", "model", "missing_required_parameter")
    _refuse(endpoint, top, body)
    stream = bool(_typed(top, "stream", bool)) and endpoint != "embeddings"
    withhold = False
    if stream and endpoint == "chat":
        body, withhold = _ask_for_usage(top, body)
    text = [top[name].raw for name in _TEXT_FIELDS[endpoint] if name in top]
    media = [match for raw in text if b"base64" in raw or b"data" in raw for match in _MEDIA.findall(raw)]
    text_bytes = sum(map(len, text)) - sum(map(len, media))
    links = sum(raw.count(b'"image_url"') + raw.count(b'"file_url"') for raw in text)
    return Request(
        model=model,
        body=body,
        stream=stream,
        withhold_usage=withhold,
        service_tier=_typed(top, "service_tier", str),
        output_cap=_cap(endpoint, top),
        choices=max(1, _typed(top, "n", int) or 1) if endpoint == "chat" else 1,
        text_bytes=text_bytes,
        media_parts=max(len(media), links),
        previous_response_id=_typed(top, "previous_response_id", str) if endpoint == "responses" else None,
        cache_ttl="12h" if b'"12h"' in body and b"prompt_cache" in body else None,
        stored=endpoint == "responses" and _typed(top, "store", bool) is not False,
    )


def _typed(top: dict[str, Field], name: str, kind: type[Any]) -> Any:
    """The field's value when it has the type `kind`, None when it is absent or null; else 400 naming it."""
    field = top.get(name)
    if field is None or field.raw == b"null":
        return None
    try:
        return msgspec.json.decode(field.raw, type=kind)
    except msgspec.DecodeError:
        words = {str: "a string", bool: "true or false", int: "an integer"}[kind]
        raise _bad(f"Invalid type for '{name}': expected {words}.", name, "invalid_type") from None


def _cap(endpoint: str, top: dict[str, Field]) -> int | None:
    caps = [_typed(top, name, int) for name in _CAP_FIELDS[endpoint]]
    known = [cap for cap in caps if cap is not None and cap >= 0]
    return min(known) if known else None


def _refuse(endpoint: str, top: dict[str, Field], body: bytes) -> None:
    for name, what in _REFUSED[endpoint].items():
        if name in top and top[name].raw not in _NULLS:
            raise _unsupported(name, what)
    if endpoint == "responses" and _typed(top, "background", bool):
        raise _unsupported("background", "background responses")
    if "tools" in top and top["tools"].raw != b"null":
        _refuse_hosted_tools(top["tools"].raw)
    if any(mark in body for mark in _REFERENCES[endpoint]):
        for name in ("messages", "input"):
            if name in top:
                _refuse_references(msgspec.json.decode(top[name].raw), name)


def _unsupported(param: str, what: str) -> ApiError:
    message = f"This gateway does not support {what} yet, because it could not meter them or check whose they are."
    return _bad(message, param, "unsupported_parameter")


def _refuse_hosted_tools(raw: bytes) -> None:
    tools = msgspec.json.decode(raw)
    if not isinstance(tools, list):
        raise _bad("Invalid type for 'tools': expected an array of objects.", "tools", "invalid_type")
    for index, tool in enumerate(tools):
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind not in ("function", "custom"):
            shown = kind[:60] if isinstance(kind, str) else "(none)"
            raise _unsupported(f"tools[{index}].type", f"the hosted tool '{shown}'; only 'function' and 'custom' tools")


def _refuse_references(value: Any, path: str) -> None:
    """Ids of objects that may be another tenant's: files and items of earlier responses."""
    stack = [(value, path)]
    while stack:
        node, where = stack.pop()
        if isinstance(node, list):
            stack.extend((child, f"{where}[{index}]") for index, child in enumerate(node))
        elif isinstance(node, dict):
            if isinstance(node.get("file_id"), str):
                raise _unsupported(f"{where}.file_id", "file ids")
            audio = node.get("audio")
            if isinstance(audio, dict) and "id" in audio:
                raise _unsupported(f"{where}.audio.id", "references to earlier audio answers")
            if node.get("type") == "item_reference" or (_is_bare_id(node) and where.startswith("input[")):
                raise _unsupported(where, "references to items of earlier responses")
            stack.extend((child, f"{where}.{key}") for key, child in node.items())


def _is_bare_id(node: dict[str, Any]) -> bool:
    """An item reference may leave out its type; then all it has is an id."""
    return isinstance(node.get("id"), str) and node.get("type") is None and "role" not in node


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
        raise _bad(f"The field '{name}' is given twice.", name, "duplicate_field") from None
    except ValueError:
        raise _bad("Invalid type for 'stream_options': expected an object.", "stream_options", "invalid_type") from None
    asked = inner.get("include_usage")
    if asked is not None and asked.raw == b"true":
        return body, False
    if asked is not None:
        value_at = options.offset + asked.offset
        if asked.raw not in (b"false", b"null"):
            return body, False  # OpenAI refuses it, and nothing is spent
        return body[:value_at] + b"true" + body[value_at + len(asked.raw) :], True
    comma = b"," if inner else b""
    at = options.offset + 1
    return body[:at] + b'"include_usage":true' + comma + body[at:], True
