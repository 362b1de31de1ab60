"""What a request must not name: hosted tools, and objects that may be another tenant's. Pure.

Neither could be metered, or their owner checked, so they are 400 `unsupported_parameter` ("Until its issue is done"
in DESIGN; facts/attacks.md A25, facts/openai-metering.md §4). Bodies without a suspicious byte sequence are not
walked; a repeat of a name that is judged here is refused, because OpenAI might read the other one.
"""

from typing import Any, Final

import msgspec

from gateway.core.errors import ApiError
from gateway.core.json_fields import DuplicateField, document, fields

_HELD: Final = {"chat": ("messages",), "completions": (), "responses": ("input", "instructions"), "embeddings": ()}
"""Fields whose parts may name an object of OpenAI's."""
_MARKS: Final = {
    "chat": (b"file_id", b'"audio"', b"\\u"),
    "responses": (b"file_id", b"item_reference", b'"id"', b'"tools"', b"\\u"),
    "completions": (),
    "embeddings": (),
}
"""Bytes without which these fields cannot name one; an escape may spell any of them."""
_JUDGED: Final = ("type", "id", "role", "file_id", "audio", "tools")
_TOOLS: Final = ("function", "custom")
_raw_list: Final = msgspec.json.Decoder(list[msgspec.Raw])

_Path = tuple["_Path | None", str]


def bad_request(message: str, param: str | None = None, code: str = "invalid_request_error") -> ApiError:
    """A 400 that names the parameter."""
    return ApiError(400, code, message, param=param)


def unsupported(param: str, what: str) -> ApiError:
    """A 400 for what the gateway cannot serve yet."""
    message = f"This gateway does not support {what} yet, because it could not meter them or check whose they are."
    return bad_request(message, param, "unsupported_parameter")


def duplicate(name: str) -> ApiError:
    """A 400 for a field that comes twice."""
    return bad_request(f"The field '{name}' is given twice.", name, "duplicate_field")


def unreadable(what: str = "the JSON body of your request") -> ApiError:
    """A 400 for bytes that are no JSON, no UTF-8, or nested too deeply."""
    return bad_request(f"We could not parse {what}: it must be one JSON object in UTF-8, not nested too deeply.")


def refuse_hosted_tools(raw: bytes) -> None:
    """`raw`: the request's `tools`. Raises ApiError 400 unless every tool is run by the client."""
    try:
        tools = _raw_list.decode(raw)
    except (ValueError, RecursionError):
        raise bad_request("Invalid type for 'tools': expected an array of objects.", "tools", "invalid_type") from None
    for index, tool in enumerate(tools):
        try:
            kind = fields(bytes(tool)).get("type")
            _refuse_hosted(None if kind is None else msgspec.json.decode(kind.raw), f"tools[{index}]")
        except DuplicateField as error:
            raise duplicate(f"tools[{index}].{error.args[0]}") from None
        except ValueError:
            message = f"Invalid type for 'tools[{index}]': expected an object."
            raise bad_request(message, f"tools[{index}]", "invalid_type") from None


def refuse_references(endpoint: str, name: str, raw: bytes) -> None:
    """`raw`: the value of the request's field `name`. Raises ApiError 400 when it names what may be somebody else's."""
    if name not in _HELD[endpoint] or not any(mark in raw for mark in _MARKS[endpoint]):
        return
    try:
        value = document(raw, once=_JUDGED)
    except DuplicateField as error:
        raise duplicate(error.args[0]) from None
    except ValueError:
        raise unreadable(f"'{name}'") from None
    root: _Path = (None, name)
    stack: list[tuple[Any, _Path]] = [(value, root)]
    while stack:
        node, path = stack.pop()
        if isinstance(node, list):
            stack.extend((child, (path, f"[{at}]")) for at, child in enumerate(node) if isinstance(child, (dict, list)))
        elif isinstance(node, dict):
            _refuse_node(node, path, is_item=endpoint == "responses" and path[0] is root)
            stack.extend((child, (path, f".{key}")) for key, child in node.items() if isinstance(child, (dict, list)))


def _refuse_node(node: dict[str, Any], path: _Path, *, is_item: bool) -> None:
    if isinstance(node.get("file_id"), str):
        raise unsupported(_shown(path) + ".file_id", "file ids")
    audio = node.get("audio")
    if isinstance(audio, dict) and "id" in audio:
        raise unsupported(_shown(path) + ".audio.id", "references to earlier audio answers")
    if node.get("type") == "item_reference" or (is_item and _is_bare_id(node)):
        raise unsupported(_shown(path), "references to items of earlier responses")
    tools = node.get("tools")
    if is_item and isinstance(tools, list) and node.get("type") != "mcp_list_tools":
        # `additional_tools` and `tool_search_output` items bring tools of their own.
        for index, tool in enumerate(tools):
            _refuse_hosted(tool.get("type") if isinstance(tool, dict) else None, f"{_shown(path)}.tools[{index}]")


def _refuse_hosted(kind: object, where: str) -> None:
    if kind not in _TOOLS:
        shown = kind[:60] if isinstance(kind, str) else "(none)"
        raise unsupported(f"{where}.type", f"the hosted tool '{shown}'; only 'function' and 'custom' tools")


def _is_bare_id(node: dict[str, Any]) -> bool:
    """An item reference may leave out its type; then all it has is an id."""
    return isinstance(node.get("id"), str) and node.get("type") is None and "role" not in node


def _shown(path: _Path) -> str:
    names = [path[1]]
    while path[0] is not None:
        path = path[0]
        names.append(path[1])
    return "".join(reversed(names))[:200]
