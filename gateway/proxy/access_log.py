"""One JSON line for every request, preformatted and written in batches: the hot path's whole logging.

Same field names as the structlog lines elsewhere. Never a key, a prompt, an answer or a query string.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final

import msgspec

from gateway.kit.errors import ApiError, DependencyDown
from gateway.kit.version import VERSION
from gateway.proxy.metrics import ACCOUNT_EMPTY
from gateway.proxy.request_info import RequestInfo, plain
from gateway.usage.event import UsageEvent
from pricing import nano_text

FLUSH_S: Final = 0.1


def detail_of(error: ApiError) -> str | None:
    """What the operator must know of a refusal; None where there is nothing."""
    return str(error.__cause__) if isinstance(error.__cause__, DependencyDown) else error.detail


def level_of_call(status: int, code: str | None, openai_code: str | None) -> str:
    """`code`: the gateway's own. An empty account at OpenAI is the operator's: every customer is refused then."""
    if status >= 500 or openai_code == ACCOUNT_EMPTY:
        return "error"
    return "warning" if code is not None and code.startswith("upstream_") else "info"


class AccessLogEntry(msgspec.Struct, omit_defaults=True):
    """One line; durations in milliseconds."""

    ts: datetime
    level: str
    event: str
    id: str
    status: int
    """What the client got; 0 when it got no answer."""
    ms: float
    process: str
    version: str = msgspec.field(default_factory=lambda: VERSION)
    endpoint: str | None = None
    user: str | None = None
    key: str | None = None
    model: str | None = None
    evidence: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: str | None = None
    first_byte_ms: float | None = None
    client_left: bool = False
    code: str | None = None
    """The gateway's own error code, or why the answer broke off."""
    param: str | None = None
    request_id: str | None = None
    """OpenAI's."""
    openai_status: int | None = None
    """Of OpenAI's answer, where there was one."""
    openai_code: str | None = None
    """The code of OpenAI's error."""
    detail: str | None = None
    """What was away and how it showed, or what to check: for the operator, never for the client."""
    method: str | None = None
    path: str | None = None
    peer: str | None = None
    trace: str | None = None
    """The trace that the client's `traceparent` names."""


class AccessLog:
    """Collects lines and hands them to `write` every FLUSH_S seconds."""

    def __init__(self, write: Callable[[bytes], object], process: str, *, clock: Callable[[], float]) -> None:
        """`process`: the name of the process that serves the calls."""
        self._write: Final = write
        self._process: Final = process
        self._clock: Final = clock
        self._encode: Final = msgspec.json.Encoder().encode
        self._lines: list[bytes] = []

    def log_metered(
        self,
        event: UsageEvent,
        status: int,
        openai_status: int | None,
        ms: float,
        first_byte_ms: float | None,
        client_left: bool,
        trace: str | None = None,
        code: str | None = None,
        openai_code: str | None = None,
        detail: str | None = None,
    ) -> None:
        """A call with a row. `code`: why the gateway answered in OpenAI's place, or why the answer broke off."""
        self._add(
            AccessLogEntry(
                ts=self._now(),
                level=level_of_call(status, code, openai_code),
                event="call",
                id=event.id,
                status=status,
                ms=round(ms, 1),
                process=self._process,
                endpoint=event.endpoint,
                user=event.user_id,
                key=event.api_key_id,
                model=event.model[:200],
                evidence=event.evidence,
                prompt_tokens=event.prompt_tokens,
                completion_tokens=event.completion_tokens,
                cost_usd=None if event.cost_nano is None else nano_text(event.cost_nano),
                first_byte_ms=None if first_byte_ms is None else round(first_byte_ms, 1),
                client_left=client_left,
                code=code,
                request_id=event.request_id,
                openai_status=openai_status,
                openai_code=openai_code,
                detail=detail,
                trace=trace,
            )
        )

    def log_free(self, event_id: str, info: RequestInfo, status: int, ms: float) -> None:
        """A call that costs nothing and has no row."""
        self._add(
            AccessLogEntry(
                self._now(),
                "error" if status >= 500 else "info",
                "free_call",
                event_id,
                status,
                round(ms, 1),
                self._process,
                endpoint=info.endpoint,
                user=None if info.principal is None else info.principal.user_id,
                key=_key_of(info),
                request_id=info.request_id,
                method=_method_of(info),
                path=_path_of(info),
            )
        )

    def log_refused(self, event_id: str, info: RequestInfo, error: ApiError, ms: float) -> None:
        """A request that the gateway answered itself, with what was known of it by then."""
        request, caller = info.request, info.principal
        self._add(
            AccessLogEntry(
                self._now(),
                "error" if error.status >= 500 and error.status != HTTPStatus.HTTP_VERSION_NOT_SUPPORTED else "warning",
                "refused",
                event_id,
                error.status,
                round(ms, 1),
                self._process,
                endpoint=info.endpoint,
                user=None if caller is None else caller.user_id,
                key=_key_of(info),
                model=info.model,
                code=error.code,
                param=None if error.param is None else plain(error.param),
                request_id=info.request_id,
                detail=detail_of(error),
                method=_method_of(info),
                path=_path_of(info),
                peer=request.remote,
            )
        )

    def flush(self) -> None:
        """Writes what has been collected."""
        if self._lines:
            lines, self._lines = self._lines, []
            self._write(b"".join(lines))

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    def _add(self, line: AccessLogEntry) -> None:
        if not self._lines:
            asyncio.get_running_loop().call_later(FLUSH_S, self.flush)
        self._lines.append(self._encode(line) + b"\n")


def _key_of(info: RequestInfo) -> str | None:
    caller = info.principal
    return None if caller is None else caller.api_key_id or caller.unkey_key_id


def _method_of(info: RequestInfo) -> str:
    return plain(info.request.method)[:16]


def _path_of(info: RequestInfo) -> str:
    return plain(info.request.raw_path.partition("?")[0])
