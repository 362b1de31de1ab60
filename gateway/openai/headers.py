"""What may pass in a request's and an answer's headers and framing, both ways.

Both go by a list. Nothing that a client invents reaches OpenAI, and nothing that OpenAI says about its own host, its
connections or the operator's account reaches a client.
"""

import re
from collections.abc import Mapping
from typing import Final

from multidict import CIMultiDict, CIMultiDictProxy

from gateway.http.framing import EVENT_ID, SERVER
from gateway.openai.namespaces import IDEMPOTENCY_KEY, Namespaces
from gateway.openai.trace_context import TRACEPARENT, TRACESTATE
from gateway.openai.upstream import UpstreamAnswer
from pricing.readers.body import read_fields, text_of
from pricing.readers.text import storable

_FORWARDED: Final = frozenset({"accept", "openai-beta", IDEMPOTENCY_KEY, "user-agent", TRACEPARENT, TRACESTATE})
_CODE: Final = re.compile(r"[a-z0-9_.\-]{1,64}")
_PASSED_BACK: Final = frozenset(
    {
        "content-type",
        "content-disposition",
        "content-language",
        "content-encoding",  # never asked for; where it comes all the same, the body cannot be read without it
        "x-request-id",
        "openai-processing-ms",
        "openai-version",
        "retry-after",
        "retry-after-ms",
        "x-should-retry",
    }
)
"""Headers of OpenAI's answers that a client gets. `x-ratelimit-*` are not among them: they count all customers of the
operator together, and the gateway sends those of the key itself."""


def forwarded_headers(
    headers: "CIMultiDictProxy[str]", event_id: str, namespaces: Namespaces, user_id: str, *, has_body: bool
) -> dict[str, str]:
    """The request headers that OpenAI gets; our id goes as `X-Client-Request-Id`.

    Every body that is served is JSON in UTF-8, as the gateway has read it, so that is what is said of it: recorded
    calls to these endpoints have no other type. A client's own could make OpenAI read the bytes in another way.
    """
    passed = {"X-Client-Request-Id": event_id}
    if has_body:
        passed["content-type"] = "application/json"
    for name, value in headers.items():
        lower = name.lower()
        if lower in _FORWARDED or lower.startswith("x-stainless-"):
            passed[lower] = value  # one of each: two spellings of a name are one header
    if IDEMPOTENCY_KEY in passed:
        passed[IDEMPOTENCY_KEY] = namespaces.name_key(user_id, passed[IDEMPOTENCY_KEY])
    return passed


def answer_headers(
    headers: Mapping[str, str], event_id: str, ours: Mapping[str, str] | None = None
) -> "CIMultiDict[str]":
    """The answer headers that the client gets: those of OpenAI's that are on the list, and `ours`."""
    passed: CIMultiDict[str] = CIMultiDict()
    for name, value in headers.items():
        if name.lower() in _PASSED_BACK:
            passed.add(name, value)
    passed["Server"] = SERVER
    passed[EVENT_ID] = event_id
    if ours:
        passed.update(ours)
    return passed


def is_event_stream(source: UpstreamAnswer, *, asked: bool = False) -> bool:
    """Whether the answer is a stream of server-sent events. A media type may be written in any case (RFC 9110); where
    there is none, the answer is what was `asked` for."""
    media_type = source.headers.get("Content-Type")
    if media_type is None:
        return asked
    return (
        media_type.startswith("text/event-stream")
        or media_type.partition(";")[0].strip().lower() == "text/event-stream"
    )


def request_id_of(source: UpstreamAnswer) -> str | None:
    """OpenAI's id of the request, as it can be stored."""
    request_id = source.headers.get("x-request-id")
    return None if request_id is None else storable(request_id)


def error_code_of(body: bytes) -> str | None:
    """The code of OpenAI's own error object, when it is a word: nothing else may go into a log line."""
    error = (read_fields(body) or {}).get("error")
    code = None if error is None else text_of((read_fields(error) or {}).get("code"))
    return code if code is not None and _CODE.fullmatch(code) else None
