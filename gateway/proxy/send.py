"""Sends a call to OpenAI, and says in a client's words what went wrong. Must not retry: the call may have run."""

from gateway.kit.errors import ApiError, DependencyDown
from gateway.openai.upstream import NotSent, Upstream, UpstreamAnswer


async def send(
    upstream: Upstream, method: str, path: str, headers: dict[str, str], body: bytes | None
) -> UpstreamAnswer:
    """Raises ApiError: `upstream_unreachable` when nothing was sent, else the call may have run."""
    try:
        return await upstream.send(method, path, headers, body)
    except NotSent as error:
        message = "OpenAI could not be reached; nothing was sent and nothing was spent."
        raise ApiError(502, "upstream_unreachable", message, kind="server_error") from error
    except DependencyDown as error:
        timed_out = "Timeout" in error.detail
        status, code = (504, "upstream_timeout") if timed_out else (502, "upstream_cut")
        message = "OpenAI did not answer; the call may have run and is recorded as an estimate."
        raise ApiError(status, code, message, kind="server_error") from error


def upstream_refused_us() -> ApiError:
    """OpenAI's 401 is about the gateway's own credential, and quotes a part of it: the client never sees it."""
    message = "The gateway's own OpenAI credential was refused; its operator has been told."
    detail = "OpenAI refuses the gateway's credential: check OPENAI_API_KEY"
    return ApiError(502, "upstream_credential_refused", message, kind="server_error", detail=detail)
