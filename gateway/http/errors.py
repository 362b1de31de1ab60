"""What a client is told when something fails that it need not know about."""

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
    return told_of(error)


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
