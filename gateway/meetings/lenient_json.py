"""JSON of others that our own parser refuses. Pure.

What a vendor really sent must not be lost for half an emoji in somebody's name, which becomes U+FFFD.
"""

import json
import re
from typing import Final

_HALF: Final = re.compile("[\ud800-\udfff]")


def repair(document: bytes) -> bytes:
    """The same document as a strict parser reads it.

    Bytes that are no UTF-8, control characters in strings and halves of surrogate pairs are repaired. Raises ValueError
    when it is not JSON all the same, or nested too deeply.
    """
    try:
        text = json.dumps(json.loads(document.decode("utf-8-sig", "replace"), strict=False), ensure_ascii=False)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return _HALF.sub("\N{REPLACEMENT CHARACTER}", text).encode()
