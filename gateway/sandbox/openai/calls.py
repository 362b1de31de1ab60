"""The OpenAI stand-in's truth: what it served and charged, one record per call, and what it was told to do wrong.

Nothing of a prompt, an answer or a credential is kept here; headers by name only.
"""

from collections import deque
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

CALLS_MAX: Final = 100_000
"""Calls remembered; the oldest go first."""

_Count = Annotated[int, Meta(ge=0)]
_Seconds = Annotated[float, Meta(ge=0)]


class ReceivedCall(msgspec.Struct):
    """One request that reached the stand-in with a right credential or without. Times are Unix seconds."""

    number: int
    endpoint: str
    started_at: float
    client_request_id: str | None
    request_id: str
    headers: list[str]
    """Names of the request's headers, lower case."""
    traceparent: str | None
    model: str | None = None
    """As the request named it."""
    response_model: str | None = None
    """As the stand-in served and charged it, whatever a behaviour made the answer say."""
    service_tier: str | None = None
    stream: bool = False
    response_id: str | None = None
    status: int | None = None
    """HTTP status answered, also when the client had left by then; None when the stand-in gave no answer."""
    usage: dict[str, Any] | None = None
    """What is charged, in the form of the endpoint; None when nothing is."""
    chunks_sent: int = 0
    """Events of a stream that went out before it ended or was cut."""
    finished: bool = False
    """Whether the answer went out whole."""
    done: bool = False
    """Whether the stand-in is through with the call; until then usage may still come."""


class CallLog:
    """The last calls, in the order in which they came."""

    def __init__(self) -> None:
        self._calls: Final[deque[ReceivedCall]] = deque(maxlen=CALLS_MAX)
        self._count = 0

    def open(self, endpoint: str, started_at: float, request_id: str, headers: Mapping[str, str]) -> ReceivedCall:
        """A new record, there from the moment at which the request's head was read."""
        self._count += 1
        call = ReceivedCall(
            number=self._count,
            endpoint=endpoint,
            started_at=started_at,
            client_request_id=headers.get("X-Client-Request-Id"),
            traceparent=headers.get("traceparent"),
            request_id=request_id,
            headers=sorted({name.lower() for name in headers}),
        )
        self._calls.append(call)
        return call

    def calls(self, after: int = 0) -> list[ReceivedCall]:
        """The calls with a number above `after`."""
        return [call for call in self._calls if call.number > after]

    def reset(self) -> None:
        """Forgets every call."""
        self._calls.clear()


class Behaviour(msgspec.Struct, forbid_unknown_fields=True):
    """What the stand-in does wrong, for the next `times` matching calls or, without it, until cleared."""

    times: Annotated[int, Meta(ge=1)] | None = None
    endpoint: str | None = None
    """Only calls of `chat`, `responses`, `embeddings`, `models` or `responses.get` and so on."""
    model: str | None = None
    """Only calls that name this model."""
    stream: bool | None = None
    """Only streams, or only others."""
    delay_s: _Seconds = 0.0
    """Seconds before the answer's head."""
    interval_s: _Seconds | None = None
    """Seconds between the events of a stream."""
    hang: bool = False
    """Never answers; the call ends, uncharged, when its client leaves or the stand-in stops."""
    chunks: Annotated[int, Meta(ge=1)] | None = None
    """Output tokens of the answer, one event each."""
    chunk_bytes: _Count = 0
    """Bytes of one huge delta in the middle of a stream."""
    status: Annotated[int, Meta(ge=400, le=599)] | None = None
    """An error in OpenAI's envelope instead of an answer: 400, 401, 403, 404, 409, 422, 429, 500, 502, 503."""
    code: str | None = None
    message: str | None = None
    retry_after_s: _Count | None = None
    """The error's `retry-after`, seconds; unless given a 429 says 1, the others and `insufficient_quota` nothing."""
    plain: bool = False
    """The error comes as an HTML page, as a proxy in between would send it."""
    redirect: str | None = None
    """Answers 307 to this address instead."""
    drop: Literal["before", "after"] | None = None
    """Closes the connection without an answer: `before` running the call, or `after` (it is charged)."""
    cut_after: _Count | None = None
    """Ends a stream after so many events, any other answer after so many bytes."""
    cut_how: Literal["chunked", "length", "close"] = "chunked"
    """`chunked` (no last chunk), `length` (short of its Content-Length) or `close` (an end that looks regular)."""
    fail_after: _Count | None = None
    """`response.failed` (Responses) or an error event (chat) after so many events, then a regular end."""
    error_after: _Count | None = None
    """An `error` event after so many events, then a regular end."""
    keepalives: _Count = 0
    """`keepalive` events of a Responses stream before its first output."""
    usage: Literal["omit", "negative", "malformed"] | dict[str, Any] | list[Any] | int | None = None
    """An untruth by name, or JSON that stands in for the usage. The truth is charged all the same."""
    response_model: str | None = None
    """The model that the answer names."""
    response_tier: str | None = None
    """The service tier that the answer names."""


class Behaviours:
    """What was asked for, in order; the first that matches a call holds for it."""

    def __init__(self) -> None:
        self._wanted: Final[list[Behaviour]] = []

    def add(self, behaviour: Behaviour) -> None:
        self._wanted.append(behaviour)

    def clear(self) -> None:
        self._wanted.clear()

    def pending(self) -> list[Behaviour]:
        """Those that still wait for a call."""
        return list(self._wanted)

    def take(self, endpoint: str, model: str | None, stream: bool) -> Behaviour:
        """The behaviour for one call, used up by one; the regular one when none matches."""
        for behaviour in self._wanted:
            fits = behaviour.endpoint in (None, endpoint) and behaviour.model in (None, model)
            if fits and behaviour.stream in (None, stream):
                if behaviour.times is not None:
                    behaviour.times -= 1
                    if behaviour.times <= 0:
                        self._wanted.remove(behaviour)
                return behaviour
        return Behaviour()
