"""One JSON line for every request, preformatted and written in batches: the hot path's whole logging.

Same field names as the structlog lines elsewhere. Never a key, a prompt, an answer or a query string.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import msgspec

from gateway.core.errors import ApiError
from gateway.core.event import UsageEvent
from pricing import nano_text

FLUSH_S: Final = 0.1


class Line(msgspec.Struct, omit_defaults=True):
    """One line; durations in milliseconds."""

    ts: datetime
    event: str
    id: str
    status: int
    ms: float
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
    method: str | None = None
    trace: str | None = None
    """The trace that the client's `traceparent` names."""


class CallLog:
    """Collects lines and hands them to `write` every FLUSH_S seconds."""

    def __init__(self, write: Callable[[bytes], object], *, clock: Callable[[], float]) -> None:
        self._write: Final = write
        self._clock: Final = clock
        self._encode: Final = msgspec.json.Encoder().encode
        self._lines: list[bytes] = []

    def metered(
        self,
        event: UsageEvent,
        status: int,
        ms: float,
        first_byte_ms: float | None,
        client_left: bool,
        trace: str | None = None,
    ) -> None:
        """A call with a row."""
        self._add(
            Line(
                ts=self._now(),
                event="call",
                id=event.id,
                status=status,
                ms=round(ms, 1),
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
                trace=trace,
            )
        )

    def free(self, event_id: str, endpoint: str, user_id: str, status: int, ms: float) -> None:
        """A call that costs nothing and has no row."""
        self._add(Line(self._now(), "free_call", event_id, status, round(ms, 1), endpoint=endpoint, user=user_id))

    def refused(self, event_id: str, method: str, error: ApiError, ms: float) -> None:
        """A request that the gateway answered itself."""
        self._add(
            Line(self._now(), "refused", event_id, error.status, round(ms, 1), code=error.code, method=method[:16])
        )

    def flush(self) -> None:
        """Writes what has been collected."""
        if self._lines:
            lines, self._lines = self._lines, []
            self._write(b"".join(lines))

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    def _add(self, line: Line) -> None:
        if not self._lines:
            asyncio.get_running_loop().call_later(FLUSH_S, self.flush)
        self._lines.append(self._encode(line) + b"\n")
