"""The dependencies of the proxy, put together by gateway/processes/proxy.py."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from gateway.access.admission import Admission
from gateway.config.settings import UpstreamSettings
from gateway.http.connections import ClientConnections
from gateway.http.cors import Cors
from gateway.kit.failpoints import Failpoint, pass_by
from gateway.limits.limiter import Limiter
from gateway.meetings.attribution import MeetingAttribution
from gateway.openai.namespaces import Namespaces
from gateway.openai.upstream import Upstream
from gateway.proxy.access_log import AccessLog
from gateway.proxy.active_relays import ActiveRelays
from gateway.proxy.estimate import Estimator
from gateway.proxy.judge import Judge
from gateway.proxy.metrics import CallMetrics
from gateway.proxy.owners import Owners
from gateway.proxy.record import Recorder
from gateway.proxy.tracing import Traces
from gateway.usage.plan_store import FollowPlans
from gateway.usage.settle import Settler


@dataclass(frozen=True)
class Dependencies:
    """One set per process."""

    admission: Admission
    owners: Owners
    meetings: MeetingAttribution
    limiter: Limiter
    recorder: Recorder
    upstream: Upstream
    settler: Settler
    estimator: Estimator
    bounds: UpstreamSettings
    log: AccessLog
    metrics: CallMetrics
    traces: Traces | None
    """Where spans go; None where nobody wants them."""
    clock: Callable[[], float]
    """Unix time, seconds."""
    random_bits: Callable[[int], int]
    """That many random bits, for event ids: unique, not secret."""
    active_relays: ActiveRelays
    clients: ClientConnections
    namespaces: Namespaces
    plans: FollowPlans
    judge: Judge = field(default_factory=Judge)
    cors: Cors | None = None
    """Which web pages may call; None: none."""
    forward_traces: bool = False
    """Whether traces of the Agents SDK go to OpenAI."""
    failpoint: Failpoint = pass_by

    def now(self) -> datetime:
        """The clock's instant, UTC."""
        return datetime.fromtimestamp(self.clock(), UTC)
