"""What a request names at OpenAI: items of earlier answers, which must be the caller's own, and objects whose owner
nobody knows yet (files, containers, …), which are 400 `unsupported_parameter`. Pure.

Bodies without a suspicious byte sequence are not walked; a repeat of a name that is judged here is refused, because
OpenAI might read the other one. Item shapes: openai-python 3.54, `types/responses/response_input_item_param.py`.
"""

import re
from typing import Any, Final, Literal, get_args

import msgspec

from gateway.openai.families.family import Family
from gateway.openai.json_fields import DuplicateField, document
from gateway.openai.request_errors import bad_request, duplicate, unreadable, unsupported_error
from gateway.openai.tools import OBJECT_IDS, judge_tool

ITEMS_MAX: Final = 4096
"""Items of earlier answers that one request may refer to."""
_JUDGED: Final = (
    "type", "id", "role", "audio", "tools", "environment", "execution", "skills", "encrypted_content", "result",
    "results", *OBJECT_IDS,
)  # fmt: skip
_FREE_FORM: Final = frozenset({"arguments", "parameters", "input_schema", "output_schema"})
"""Members that hold what a program or a model made up, in which no name means anything to OpenAI."""
_CONTENT: Final = {
    "reasoning": "encrypted_content",
    "compaction": "encrypted_content",
    "image_generation_call": "result",
    "file_search_call": "results",
}
"""Items that OpenAI looks up by their id when they come without this member, which holds what they are about."""
_ENVELOPE: Final = frozenset({"type", "id", "role", "status", "object", "phase"})
"""Members that say nothing of their own: an item that has only these is a reference, whatever its type."""
_SAYS_ALL: Final = frozenset({"compaction_trigger"})
"""Types that are complete without any other member."""

Item = Literal[
    "additional_tools", "apply_patch_call", "apply_patch_call_output", "code_interpreter_call", "compaction",
    "compaction_trigger", "computer_call", "computer_call_output", "configuration_update", "custom_tool_call",
    "custom_tool_call_output", "file_search_call", "function_call", "function_call_output", "image_generation_call",
    "item_reference", "local_shell_call", "local_shell_call_output", "mcp_approval_request", "mcp_approval_response",
    "mcp_call", "mcp_list_tools", "message", "reasoning", "shell_call", "shell_call_output", "tool_search_call",
    "tool_search_output", "web_search_call",
]  # fmt: skip
"""Types of items whose members are known here, so that what they name can be judged (openai-python 3.54,
`ResponseInputItemParam`). Not `program` and its output, which refer to a run at OpenAI."""


class _Typed(msgspec.Struct):
    type: Item | None = None


_typed_items: Final = msgspec.json.Decoder(list[_Typed])
_ESCAPED_LETTER: Final = re.compile(rb"\\u00(?:5[fF]|6[1-9a-fA-F]|7[0-9aA])")
"""An escape that may spell a letter of one of our names, all of which are lower-case letters and `_`. Escapes of other
characters, as of `<` or of Chinese, can name nothing."""

_Path = tuple["_Path | None", str | int]
"""Where a value stands: its container, and its name or index there."""


def check_item_types(name: str, raw: bytes) -> None:
    """`raw`: the value of a field `name` that holds items. Raises ApiError 400 for one of a type that is not known: it
    may name an object of somebody else's in a way that nobody has looked at."""
    if raw[:1] != b"[":
        return
    try:
        _typed_items.decode(raw)
    except msgspec.ValidationError:
        _refuse_unknown(name, raw)
    except (ValueError, RecursionError):
        raise unreadable(f"'{name}'") from None


def _refuse_unknown(name: str, raw: bytes) -> None:
    try:
        items = msgspec.json.decode(raw)
    except (ValueError, RecursionError):
        # The typed decoder stopped at the type; what comes after it is read here for the first time.
        raise unreadable(f"'{name}'") from None
    for at, item in enumerate(items):
        where = f"{name}[{at}]"
        if not isinstance(item, dict):
            raise bad_request(f"Invalid type for '{where}': expected an object.", where, "invalid_type")
        kind = item.get("type")
        if kind is not None and kind not in get_args(Item):
            raise unsupported_error(f"{where}.type", f"items of type {str(kind)[:60]!a}")


def read_references(family: Family, name: str, raw: bytes) -> list[str]:
    """The ids of items that the request's field `name` refers to. `raw` is its value; it is one of the family's
    `referring_fields`.

    Raises ApiError 400 when it names anything else that may be somebody else's.
    """
    for mark in family.reference_marks:  # a loop: every call comes here, and a generator costs more than the search
        if mark in raw:
            break
    else:
        if not _spells_a_letter(raw):
            return []
    try:
        value = document(raw, once=_JUDGED)
    except DuplicateField as error:
        raise duplicate(error.args[0]) from None
    except ValueError:
        raise unreadable(f"'{name}'") from None
    found: list[str] = []
    root: _Path = (None, name)
    stack: list[tuple[Any, _Path]] = [(value, root)]
    while stack:
        node, path = stack.pop()
        if isinstance(node, list):
            stack.extend((child, (path, at)) for at, child in enumerate(node) if isinstance(child, (dict, list)))
        elif isinstance(node, dict):
            _refuse_objects(node, path)
            if family.has_items:
                _read_item(family, node, path, found, is_item=path[0] is root)
            stack.extend(
                (child, (path, key))
                for key, child in node.items()
                if isinstance(child, (dict, list)) and key not in _FREE_FORM
            )
    if len(found) > ITEMS_MAX:
        message = f"A request may refer to {ITEMS_MAX} items of earlier responses; this one refers to {len(found)}."
        raise bad_request(message, name, "array_above_max_length")
    return found


def _spells_a_letter(raw: bytes) -> bool:
    return b"\\u00" in raw and _ESCAPED_LETTER.search(raw) is not None


def _refuse_objects(node: dict[str, Any], path: _Path) -> None:
    for name in OBJECT_IDS:
        if node.get(name) and isinstance(node[name], (str, list)):
            raise unsupported_error(f"{_quote_id(path)}.{name}", OBJECT_IDS[name])
    audio = node.get("audio")
    if isinstance(audio, dict) and "id" in audio:
        raise unsupported_error(_quote_id(path) + ".audio.id", "references to earlier audio answers")


def _read_item(family: Family, node: dict[str, Any], path: _Path, found: list[str], *, is_item: bool) -> None:
    """Judges the tools that an item brings, and notes its id in `found` when OpenAI must look up what it says."""
    item_id, kind = node.get("id"), node.get("type")
    if kind == "item_reference" or (is_item and item_id is not None and _only_refers(node, kind)):
        if not isinstance(item_id, str):
            raise bad_request(
                f"Invalid type for '{_quote_id(path)}.id': expected a string.", _quote_id(path), "invalid_type"
            )
        found.append(item_id)
    tools = node.get("tools")
    if is_item and isinstance(tools, list) and kind != "mcp_list_tools":
        # `additional_tools` and `tool_search_output` items bring tools of their own.
        for index, tool in enumerate(tools):
            judge_tool(family, tool, f"{_quote_id(path)}.tools[{index}]")


def _only_refers(node: dict[str, Any], kind: object) -> bool:
    kind = kind if isinstance(kind, str) else ""
    content = _CONTENT.get(kind)
    if content is not None:
        return not node.get(content)
    return kind not in _SAYS_ALL and all(key in _ENVELOPE or not value for key, value in node.items())


def _quote_id(path: _Path) -> str:
    container, name = path
    parts = []
    while container is not None:
        parts.append(f"[{name}]" if isinstance(name, int) else f".{name}")
        container, name = container
    return "".join((str(name), *reversed(parts)))[:200]
