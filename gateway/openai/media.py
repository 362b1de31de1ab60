"""Pictures, files and sounds in a request: what of it the model does not read as text, and how much that may be. Pure.

Only a part that stands where OpenAI takes one, and says that it is one, counts: anything else is text, whatever its
members are called. Shapes: openai-python 3.54, `types/chat/chat_completion_content_part_param.py`,
`types/responses/response_input_content_param.py`, `response_computer_tool_call_output_screenshot_param.py`.
"""

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec

_MARKS: Final = (b'_url"', b'data"')
_ESCAPED_ASCII: Final = re.compile(rb"\\u00[2-7]")
"""An escape that may spell a member's name; writers escape ASCII letters only on purpose."""
_HOLDERS: Final = ("content", "output")
"""Members of a message or an item that hold parts."""


class Media(NamedTuple):
    """What a field of a request holds beside text."""

    parts: int = 0
    not_text: int = 0
    """Bytes that are no text."""
    inline: int = 0
    """Bytes of files and sounds: none has fewer of them than tokens, unless it is compressed."""
    links: int = 0
    """Files whose size is not known before OpenAI fetches them."""


NONE: Final = Media()


def read_media(raw: bytes) -> Media:
    """`raw`: the request's `messages` or `input`."""
    for mark in _MARKS:  # a loop: every call comes here, and a generator costs more than the search
        if mark in raw:
            break
    else:
        if not (b"\\u00" in raw and _ESCAPED_ASCII.search(raw)):
            return NONE
    try:
        value = msgspec.json.decode(raw)
    except (ValueError, RecursionError):
        return NONE  # then all of it counts as text
    parts = not_text = inline = links = 0
    for part in _parts(value):
        pictures, sizes, linked = _strings(part)
        if pictures or sizes or linked:
            parts += 1
        inline += sum(map(_size, sizes))
        links += len(linked)
        not_text += sum(map(_size, (*pictures, *sizes, *linked)))
    return Media(parts, not_text, inline, links)


def _parts(value: Any) -> Iterator[dict[str, Any]]:
    """Every part of every message or item."""
    for item in value if isinstance(value, list) else ():
        if not isinstance(item, dict):
            continue
        for name in _HOLDERS:
            held = item.get(name)
            for part in held if isinstance(held, list) else (held,):
                if isinstance(part, dict):
                    yield part


def _strings(part: dict[str, Any]) -> tuple[list[str], list[str], list[str]]:
    """(pictures, files and sounds, links to files) of one part."""
    match part.get("type"):
        case "image_url":
            return _named(part.get("image_url"), "url"), [], []
        case "input_image" | "computer_screenshot":
            return _named(part, "image_url"), [], []
        case "input_audio":
            return [], _named(part.get("input_audio"), "data"), []
        case "file":
            return [], _named(part.get("file"), "file_data"), []
        case "input_file":
            return [], _named(part, "file_data"), _named(part, "file_url")
    return [], [], []


def _named(holder: Any, name: str) -> list[str]:
    found = holder.get(name) if isinstance(holder, dict) else None
    return [found] if isinstance(found, str) else []


def _size(text: str) -> int:
    # No more than it takes in the request, where escapes only lengthen it.
    return len(text.encode("utf-8", "replace"))
