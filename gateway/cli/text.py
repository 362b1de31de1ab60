"""Makes text safe for a terminal and for other readers of a command's output.

Names come from users, rooms, keys and vendors: they may hold what steers a terminal (ESC, C1, an OSC link) or turns
the reading direction. Such a character is shown as its escape, never sent.
"""

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final
from unicodedata import category

Say = Callable[[str], None]
_ASTRAL: Final = 0x10000


def legible(text: str) -> str:
    """Text of others on one line: what would steer a terminal, a newline too, stands there as an escape."""
    # isprintable() is C and true for nearly every text.
    return text if text.isprintable() else "".join(char if _is_harmless(char) else repr(char)[1:-1] for char in text)


def legible_lines(text: str) -> str:
    """The same for text that has lines of its own: LF and CR LF stay."""
    return "\r\n".join("\n".join(map(legible, part.split("\n"))) for part in text.split("\r\n"))


def json_text(value: Any, *, indent: int | None = None) -> str:
    """JSON that a terminal may show unchanged; parsers read the exact value, because JSON has its own escapes."""
    return escape_json(json.dumps(value, indent=indent, ensure_ascii=False))


def escape_json(document: str) -> str:
    """A JSON document with every character escaped that would steer a terminal; newlines between its parts stay."""
    # C0 is escaped within JSON's strings already; C1, bidi and the like are not, and occur only within strings.
    harmful = {char for char in set(document) if char != "\n" and not _is_harmless(char)}
    return document.translate({ord(char): _json_escape(ord(char)) for char in harmful}) if harmful else document


def minute(at: datetime | None) -> str:
    """An instant for a table, UTC to the minute."""
    return "–" if at is None else f"{at:%Y-%m-%d %H:%M}"


def _is_harmless(char: str) -> bool:
    """Spaces of every width too: some scripts write names with them."""
    return char.isprintable() or category(char) == "Zs"


def _json_escape(point: int) -> str:
    if point < _ASTRAL:
        return f"\\u{point:04x}"
    high, low = divmod(point - _ASTRAL, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
