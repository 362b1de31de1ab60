"""What a metered call leaves behind besides its row: a line in the access log, metrics, and a span."""

import asyncio
from typing import Final

import structlog

from gateway.http.errors import told_of
from gateway.openai.headers import error_code_of
from gateway.openai.trace_context import TRACEPARENT, trace_id
from gateway.proxy.access_log import detail_of
from gateway.proxy.dependencies import Dependencies
from gateway.proxy.request_info import RequestInfo
from gateway.proxy.settlement import Settlement
from gateway.proxy.tracing import CallSpan
from gateway.usage.event import OpenRecord

_log: Final = structlog.get_logger("gateway.proxy")


class CallReport:
    """Of one call; filled in as it goes, and written once."""

    __slots__ = (
        "_begun_s",
        "_deps",
        "_detail",
        "_failed",
        "_info",
        "_ours_s",
        "_read_s",
        "_span",
        "_started_s",
        "_time",
        "_told",
        "sent_s",
    )

    def __init__(self, deps: Dependencies, info: RequestInfo, started_s: float) -> None:
        """`started_s`: when the request came, Unix seconds."""
        self._deps: Final = deps
        self._info: Final = info
        self._started_s: Final = started_s
        self._time: Final = asyncio.get_running_loop().time
        self._begun_s: Final = self._time()
        self._read_s = self._begun_s
        self._ours_s = deps.clock() - started_s
        """Seconds that the call has spent in here so far: neither reading from the client nor waiting for OpenAI."""
        self._failed: str | None = None
        self._told: int | None = None
        """The status of the gateway's own answer, 0 for none; None where OpenAI's goes to the client."""
        self._detail: str | None = None
        self._span: CallSpan | None = None
        self.sent_s: float | None = None
        """When the OPEN was on disk and the call went to OpenAI, of the loop's clock; None before."""

    def mark_read(self) -> None:
        """The request has been read."""
        self._read_s = self._time()

    def mark_sent(self) -> None:
        """The OPEN is on disk: from here on the call may run."""
        self.sent_s = self._time()
        self._ours_s += self.sent_s - self._read_s

    def begin_span(self, opened: OpenRecord, headers: dict[str, str]) -> None:
        """Adds the span's id to the `headers` for OpenAI, where somebody wants traces."""
        if self._deps.traces is not None:
            self._span = self._deps.traces.begin(opened.endpoint, opened.model, headers, self._started_s)

    def note_failure(self, error: BaseException) -> None:
        """The gateway answers in OpenAI's place; where it was cancelled, nobody does."""
        self._told = 0
        if isinstance(error, Exception):
            told = told_of(error)
            self._told, self._failed, self._detail = told.status, told.code, detail_of(told)

    def write(self, event_id: str, settlement: Settlement) -> None:
        """The call has ended."""
        deps = self._deps
        event, result, status = settlement.event, settlement.relay_result, settlement.status
        if event is None:
            _log.error("a call ended without settle", id=event_id)
            return
        left = result is not None and result.client_left
        unanswered = self._failed if status else None  # without a status the call never went to OpenAI
        broken = unanswered if result is None else result.broken
        told = self._status_told(settlement)
        ms = (deps.clock() - self._started_s) * 1000
        first = None if result is None else result.first_byte_s
        trace = trace_id(self._info.request.headers.get(TRACEPARENT))
        said = None if result is None or status < 400 else error_code_of(result.text)
        first_ms = None if first is None else (first - self._begun_s) * 1000
        openai_status = None if result is None else status
        code = self._failed or broken
        deps.log.log_metered(event, told, openai_status, ms, first_ms, left, trace, code, said, self._detail)
        self._info.is_logged = True
        if self._span is not None:
            self._span.end(event, told)
        if result is not None and broken is None:
            self._ours_s += self._time() - result.heard_s
        wait = None if first is None or self.sent_s is None else first - self.sent_s
        deps.metrics.count_metered(event, told, self._ours_s, wait, client_left=left)
        if result is not None and result.coding is not None:
            deps.metrics.count_coded(result.coding)
        if broken != "drain_limit" and (broken is not None or status >= 500 or status in (401, 429)):
            deps.metrics.count_upstream_failure(status, broken, said)

    def _status_told(self, settlement: Settlement) -> int:
        """What the client got; a head that has gone out stays, whatever became of the answer after it."""
        client = None if settlement.relay_result is None else settlement.relay_result.client
        if client is not None and client.prepared:
            return client.status
        return settlement.status if self._told is None else self._told
