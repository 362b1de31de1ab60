"""The error that a client gets for an internal failure."""

import traceback
from typing import Final

import structlog

from gateway.kit.errors import ApiError, DependencyDown

_log: Final = structlog.get_logger("gateway.proxy")


def as_refusal(error: BaseException, event_id: str) -> ApiError:
    """What the client is told of `error`; what it need not know is logged under `event_id`."""
    if not isinstance(error, ApiError | DependencyDown):
        # Where, never what: an exception's message may carry a piece of a prompt or a key.
        where = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-4:]]
        _log.error("call failed", id=event_id, error=type(error).__name__, where=where)
    forget_frames(error)
    return told_of(error)


def forget_frames(error: BaseException) -> None:
    """Drops the tracebacks of `error` and of what it came from: it has been dealt with, and something still holds it.

    aiohttp keeps the exception of a broken body in the reader, and who refuses a request keeps its error until the
    answer has gone. A traceback holds the frames that it came through, and these the request and its body: a circle
    that only the garbage collector ends, which looks rarely (`calm_gc`).
    """
    found = [error]
    while found:
        each = found.pop()
        each.__traceback__ = None
        found += [reason for reason in (each.__cause__, each.__context__) if reason is not None]


def told_of(error: BaseException) -> ApiError:
    """What the client is told of `error`."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, DependencyDown):
        refused = ApiError(503, "gateway_unavailable", "The gateway cannot serve this call now.", kind="server_error")
        refused.__cause__ = error  # for its log line
        return refused
    return ApiError(500, "gateway_error", "The gateway failed on this call.", kind="server_error")


def cannot_tell(what: str) -> ApiError:
    """503: a store that knows `what` does not answer."""
    message = f"The gateway cannot check {what} right now; please try again."
    return ApiError(503, "ownership_unavailable", message, kind="server_error", headers={"Retry-After": "2"})
