"""What the proxy needs of a tracer; gateway/proxy/traces.py is one."""

from typing import Protocol

from gateway.usage.event import UsageEvent


class CallSpan(Protocol):
    """One metered call in somebody's trace."""

    def end(self, event: UsageEvent, status: int) -> None: ...


class Traces(Protocol):
    """Begins spans."""

    def begin(self, endpoint: str, model: str, headers: dict[str, str], started_s: float) -> CallSpan: ...
