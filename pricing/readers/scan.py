"""Finds an answer's top-level members while its bytes pass, in any order and any chunking, in bounded memory. Pure.

For bodies too large to keep, and for those that msgspec refuses (half a surrogate pair, deep nesting). It follows
strings and brackets and checks nothing else: `complete` says that the object came to its end, so that what was not
found was not said.
"""

import re
from typing import Final

from msgspec import DecodeError
from msgspec.json import decode

WANTED: Final = frozenset({"id", "model", "service_tier", "usage", "status", "error"})
"""What an answer says of itself; `output` is looked into for the ids of its items."""
VALUE_BYTES_MAX: Final = 256 * 1024
"""A wanted value that is larger is given up, and named in `lost`."""
SHORT_BYTES_MAX: Final = 1024
"""A key, or the id of an item, that is longer is none that anybody wants."""
ITEMS_MAX: Final = 1024
_BEFORE: Final = re.compile(rb"[ \t\r\n\xef\xbb\xbf]*")
_STRING: Final = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
"""The rest of a string: to its quote, to the end, or to a backslash whose other half has not come."""
_NEAR: Final = re.compile(rb'["{}\[\],:]')
_FAR: Final = re.compile(rb'["{}\[\]]')
_FLAT: Final = rb'(?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+")'
_NESTED: Final = rb"(?:%b|[\[{]%b*+[\]}])" % (_FLAT, _FLAT)
_SKIP: Final = re.compile(rb"(?:%b|[\[{]%b*+[\]}])*+" % (_FLAT, _NESTED), re.DOTALL)
"""What nobody looks at, as far as it is whole: strings, numbers, and what is nested in two brackets at most."""
_QUOTE, _BACKSLASH, _COMMA, _COLON = b'"\\,:'
_ITEM_DEPTH: Final = 3
"""Inside of `{"output": [{…}]}`."""


class Scan:
    """One JSON object. `feed` it all; then `members`, `item_ids` and `complete`."""

    def __init__(self, wanted: frozenset[str] | None = WANTED, *, value_max: int = VALUE_BYTES_MAX) -> None:
        """`wanted`: names to keep; None keeps every member."""
        self.members: Final[dict[str, bytes]] = {}
        """The wanted members that were found, each value as its bytes; of a repeated name the last."""
        self.item_ids: Final[list[bytes]] = []
        """The JSON strings that are the ids of the items of `output`, where that is not kept itself."""
        self.lost: Final[set[str]] = set()
        """Wanted members that were too large."""
        self.complete = False
        """Whether the object has come to its end."""
        self._wanted: Final = wanted
        self._value_max: Final = value_max
        self._dead = False
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._items = False
        """Whether the array of output items is open."""
        self._watched = False
        """Whether the names of the object at this depth matter."""
        self._key_next = False
        self._name: str | None = None
        self._top: str | None = None
        """The member of depth 1 that is being read."""
        self._kept: bytearray | None = None
        """A key or a wanted value, as far as it has come in earlier pieces."""
        self._kept_depth = 0
        self._kept_is_key = False
        self._start = 0
        """Where in this piece it goes on."""

    def feed(self, piece: bytes) -> None:
        """The next bytes of the body."""
        at, size = 0, len(piece)
        if self._depth == 0:
            at = self._begin(piece)
        self._start = 0 if self._kept is not None else self._start
        while at < size and self._depth:
            if self._in_string:
                at = self._read_string(piece, at)
                continue
            at = self._find_mark(piece, at)
            if at < size:
                self._take(piece, at)
            at += 1
        if self._kept is not None:
            self._kept += piece[self._start :]
            if len(self._kept) > self._room_left():
                self._give_up()

    def _find_mark(self, piece: bytes, at: int) -> int:
        """The next quote or bracket that matters, where names matter also comma and colon; else the piece's end."""
        if not self._watched and not (self._items and self._depth < _ITEM_DEPTH):
            skipped = _SKIP.match(piece, at)
            return at if skipped is None else skipped.end()
        found = (_NEAR if self._watched else _FAR).search(piece, at)
        return len(piece) if found is None else found.start()

    def _begin(self, piece: bytes) -> int:
        """Where the object's members begin; the end of the piece while it has not begun, or when there is none."""
        before = _BEFORE.match(piece)
        at = 0 if before is None else before.end()
        if self._dead or self.complete or at == len(piece):
            return len(piece)
        if piece[at : at + 1] != b"{":
            self._dead = True
            return len(piece)
        self._open(at=at, brace=True)
        return at + 1

    def _read_string(self, piece: bytes, at: int) -> int:
        if self._escaped:
            self._escaped = False
            at += 1
        end = piece.find(b'"', at)
        end = len(piece) if end < 0 else end
        if piece.find(b"\\", at, end) >= 0:
            rest = _STRING.match(piece, at)
            end = at if rest is None else rest.end()
        if end >= len(piece):
            return len(piece)
        if piece[end] == _BACKSLASH:
            self._escaped = True
            return len(piece)
        self._in_string = False
        if self._kept is not None and self._kept_is_key:
            self._name = _text(bytes(self._kept) + piece[self._start : end + 1])
            self._kept = None
        return end + 1

    def _take(self, piece: bytes, at: int) -> None:
        """One mark outside of strings."""
        mark = piece[at]
        if mark == _QUOTE:
            self._in_string = True
            if self._watched and self._key_next and self._kept is None:
                self._keep(at, is_key=True)
        elif mark == _COMMA:
            self._end_value(piece, at)
            self._key_next = True
        elif mark == _COLON:
            self._begin_value(at)
        elif mark in b"{[":
            self._open(at=at, brace=mark == 0x7B)
        else:
            self._close(piece, at)

    def _open(self, *, at: int, brace: bool) -> None:
        self._depth += 1
        if self._depth == _ITEM_DEPTH - 1:
            self._items = not brace and self._top == "output" and self._kept is None
        self._watch()
        if self._watched:
            self._key_next, self._name = brace, None
            self._watched = brace

    def _close(self, piece: bytes, at: int) -> None:
        if self._watched:
            self._end_value(piece, at)
        self._depth -= 1
        if self._depth < _ITEM_DEPTH - 1:
            self._items = False
        self._watch()
        self._key_next = False
        self.complete = self._depth == 0

    def _watch(self) -> None:
        self._watched = self._depth == 1 or (self._items and self._depth == _ITEM_DEPTH)

    def _begin_value(self, at: int) -> None:
        if not self._key_next:
            return
        self._key_next = False
        if self._depth == 1:
            self._top = self._name
            wanted = self._name is not None and (self._wanted is None or self._name in self._wanted)
        else:
            wanted = self._name == "id"
        if wanted and self._kept is None:
            self._keep(at + 1, is_key=False)

    def _end_value(self, piece: bytes, at: int) -> None:
        if self._kept is None or self._kept_is_key or self._kept_depth != self._depth:
            return
        value = bytes(self._kept) + piece[self._start : at]
        self._kept = None
        if self._depth > 1:
            if len(value) <= SHORT_BYTES_MAX and len(self.item_ids) < ITEMS_MAX:
                self.item_ids.append(value.strip())
        elif len(value) > self._value_max:
            self.lost.add(self._name or "")
            self.members.pop(self._name or "", None)
        elif self._name is not None:
            self.members[self._name] = value.strip()
            self.lost.discard(self._name)

    def _keep(self, at: int, *, is_key: bool) -> None:
        self._kept, self._start = bytearray(), at
        self._kept_is_key, self._kept_depth = is_key, self._depth

    def _room_left(self) -> int:
        """Bytes that may be kept of what is being kept."""
        return SHORT_BYTES_MAX if self._kept_is_key or self._kept_depth > 1 else self._value_max

    def _give_up(self) -> None:
        if not self._kept_is_key and self._kept_depth == 1 and self._name is not None:
            self.lost.add(self._name)
            self.members.pop(self._name, None)
        self._name, self._kept = None, None


def _text(raw: bytes) -> str | None:
    """A key; half a surrogate pair makes it none that anybody wants."""
    try:
        return decode(raw, type=str)
    except (DecodeError, UnicodeDecodeError):
        return None
