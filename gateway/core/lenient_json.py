"""JSON of others that our own parser refuses, and text of theirs that PostgreSQL cannot keep. Pure.

What a vendor really sent must not be lost for half an emoji in somebody's name: what cannot be kept becomes U+FFFD.
"""

import json
import re
from typing import Final

_HALF: Final = re.compile("[\ud800-\udfff]")
_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")
_INSTEAD: Final = "\N{REPLACEMENT CHARACTER}"


def storable(text: str) -> str:
    """The text without what PostgreSQL cannot keep: NUL and halves of surrogate pairs."""
    return _UNSTORABLE.sub(_INSTEAD, text)


def mended(document: bytes) -> bytes:
    """The same document as a strict parser reads it.

    Bytes that are no UTF-8, control characters in strings and halves of surrogate pairs are mended. Raises ValueError
    when it is no JSON all the same, or nested too deeply.
    """
    try:
        text = json.dumps(json.loads(document.decode("utf-8-sig", "replace"), strict=False), ensure_ascii=False)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return _HALF.sub(_INSTEAD, text).encode()
