"""What the proxy is made of: the edges and values it was given by the root."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from gateway.core.config import UpstreamSettings
from gateway.core.cors import Cors
from gateway.core.failpoints import Failpoint, pass_by
from gateway.core.settle import Settler
from gateway.edges.upstream import Upstream
from gateway.flows.proxy.admission import Admission
from gateway.flows.proxy.drains import Drains
from gateway.flows.proxy.estimate import Estimator
from gateway.flows.proxy.limiter import Limiter
from gateway.flows.proxy.line import CallLog
from gateway.flows.proxy.meetings import Meetings
from gateway.flows.proxy.metrics import CallMetrics
from gateway.flows.proxy.owners import Owners
from gateway.flows.proxy.record import Recorder
from gateway.flows.proxy.tracing import Traces


@dataclass(frozen=True)
class Parts:
    """One set per process."""

    admission: Admission
    owners: Owners
    meetings: Meetings
    limiter: Limiter
    recorder: Recorder
    upstream: Upstream
    settler: Settler
    estimator: Estimator
    bounds: UpstreamSettings
    log: CallLog
    metrics: CallMetrics
    traces: Traces | None
    """Where spans go; None where nobody wants them."""
    clock: Callable[[], float]
    """Unix time, seconds."""
    random_bits: Callable[[int], int]
    """That many random bits, for event ids: unique, not secret."""
    drains: Drains
    cors: Cors | None = None
    """Which web pages may call; None: none."""
    forward_traces: bool = False
    """Whether traces of the Agents SDK go to OpenAI."""
    failpoint: Failpoint = pass_by

    def now(self) -> datetime:
        """The clock's instant, UTC."""
        return datetime.fromtimestamp(self.clock(), UTC)
