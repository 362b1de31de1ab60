"""The text of a whole answer that names no usage, or of as much of it as came, for an estimate. Pure.

Only counted, in memory, then forgotten. Found by its keys and not by parsing, so that an answer that broke off, or that
is nested too deeply, counts as well; what an answer echoes of the request lies under other keys.
"""

import re
from typing import Final

from pricing.readers.body import text_of

_TEXT: Final = re.compile(
    rb'"(?:content|refusal|text|arguments|input|code|transcript|reasoning_content)"\s*:\s*("(?:[^"\\]|\\.)*+"?+)',
    re.DOTALL,
)


def answer_text(body: bytes) -> str:
    """Content, refusals, arguments and the like, joined; "" when there is none."""
    return "".join(_decoded(found[1]) for found in _TEXT.finditer(body))


def _decoded(raw: bytes) -> str:
    """A JSON string, which may end early or hold half a surrogate pair."""
    text = text_of(raw)
    return text if text is not None else raw.strip(b'"').decode("utf-8", "replace")
