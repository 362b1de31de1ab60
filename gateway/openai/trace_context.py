"""The W3C trace context that a client may send (https://www.w3.org/TR/trace-context/, version 00). Pure."""

import re
from typing import Final

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
_FORM: Final = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?")
_NONE: Final = re.compile(r"0+")


def trace_id(traceparent: str | None) -> str | None:
    """The trace that a `traceparent` belongs to, 32 hex digits; None when there is none or it is malformed."""
    if traceparent is None:
        return None
    found = _FORM.fullmatch(traceparent)
    if found is None or _NONE.fullmatch(found[1]) or _NONE.fullmatch(found[2]):
        return None
    return found[1]
