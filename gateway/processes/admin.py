"""The admin address: /metrics for Prometheus, /healthz, and /readyz with the details behind it.

For operators on their own network: never on an address that clients reach. Adds up what the processes say of
themselves once a second; asks neither them nor a dependency anything.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, Final

from aiohttp import web
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from gateway.config.settings import ConnectionSettings
from gateway.http.connections import FILES_KEPT, FILES_PER_CALL, LOOK_S, ClientConnection, ClientConnections
from gateway.http.uploads import Uploads
from gateway.kit.metrics import FAMILIES, MetricFamily, Sample, Status, add_up, counters_only

CONNECTIONS_MAX: Final = 64
"""Open at the same time; three quarters of them for one address."""
STALL_S: Final = 20.0
"""Seconds within which a reader must take the next 16 KiB of an answer."""
SILENT_S: Final = 15.0
"""Seconds without a word after which a process counts as stuck."""


class _Process:
    """One child: what it said last, and what its earlier lives had counted."""

    def __init__(self) -> None:
        self.pid: int | None = None
        self.starts = 0
        self.heard_s: float | None = None
        self.status: Status | None = None
        self.past: list[Sample] = []
        self.ended_by: str | None = None
        """The failure that its last life told of, if any."""


class Board:
    """What every process of this host last said of itself. A `processes.Watcher`."""

    def __init__(self, *, monotonic: Callable[[], float], build: tuple[str, str, str] | None = None) -> None:
        """`build`: the labels of gateway_build_info (kit/version.py)."""
        self._monotonic: Final = monotonic
        self._build: Final = [] if build is None else [Sample("gateway_build_info", build, 1)]
        self._processes: Final[dict[str, _Process]] = {}

    def mark_started(self, name: str, pid: int) -> None:
        """A life begins."""
        process = self._processes.setdefault(name, _Process())
        process.pid, process.status, process.heard_s = pid, None, None
        process.starts += 1

    def heard(self, name: str, status: Status) -> None:
        """What it says now."""
        process = self._processes[name]
        process.status, process.heard_s = status, self._monotonic()

    def mark_ended(self, name: str) -> None:
        """Its counters stay, so that they never fall; a killed process takes its last second with it."""
        process = self._processes[name]
        if process.status is not None:
            process.past = add_up((process.past, counters_only(process.status.samples)))
            process.ended_by = process.status.failure
        process.pid = process.status = process.heard_s = None

    def samples(self) -> list[Sample]:
        """Every series, over all processes and their earlier lives."""
        return add_up(
            (
                self._build,
                *(process.past for process in self._processes.values()),
                *(process.status.samples for process in self._processes.values() if process.status is not None),
                *(self._lives(name, process) for name, process in self._processes.items()),
            )
        )

    def _lives(self, name: str, process: _Process) -> Iterator[Sample]:
        yield Sample("gateway_process_up", (name,), int(process.status is not None))
        yield Sample("gateway_process_starts_total", (name,), process.starts)

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Whether calls can be metered here, and each process as JSON. They can while a process waits for a store, a
        full Redis too: the journal has them."""
        shown = {name: self._shown(process) for name, process in self._processes.items()}
        ready = all(process["problem"] is None for process in shown.values()) and bool(shown)
        waits = any(process["waits_for"] is not None for process in shown.values())
        status = "not ready" if not ready else "degraded" if waits else "ok"
        return ready, {"status": status, "processes": shown}

    def _shown(self, process: _Process) -> dict[str, Any]:
        status = process.status
        if process.pid is None:
            problem: str | None = "it has ended, and is being started again" + _cause(process)
        elif status is None or process.heard_s is None:
            problem = "it is starting" + _cause(process)
        elif (silent_s := self._monotonic() - process.heard_s) > SILENT_S:
            problem = f"it has said nothing for {silent_s:.0f} s"
        else:
            problem = status.failure
        waiting = None if status is None else status.waiting
        return {"pid": process.pid, "starts": process.starts, "problem": problem, "waits_for": waiting}


def _cause(process: _Process) -> str:
    return "" if process.ended_by is None else f": {process.ended_by}"


def parse_metrics(board: Board) -> Collector:
    """The board as prometheus-client reads it."""
    return _Exposed(board.samples)


class _Exposed(Collector):
    def __init__(self, samples: Callable[[], Iterable[Sample]]) -> None:
        self._samples: Final = samples

    def collect(self) -> Iterator[Metric]:
        by_name: dict[str, list[Sample]] = {}
        for sample in self._samples():
            by_name.setdefault(sample.name, []).append(sample)
        # A family that nobody has counted yet is shown too, so that an alarm on it is not an alarm on nothing.
        for name, family in FAMILIES.items():
            yield _metric(name, family, by_name.get(name, []))


def _metric(name: str, family: MetricFamily, samples: list[Sample]) -> Metric:
    labels = family.labels
    if family.kind == "histogram":
        histogram = HistogramMetricFamily(name, family.help, labels=labels)
        for sample in samples:
            histogram.add_metric(sample.labels, _cumulated(family.bounds, sample.buckets), sample.value)
        return histogram
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = kind(name, family.help, labels=labels)
    for sample in samples or ([] if labels else [Sample(name)]):
        metric.add_metric(sample.labels, sample.value)
    return metric


def _cumulated(bounds: tuple[float, ...], buckets: tuple[int, ...]) -> list[tuple[str, float]]:
    total = 0
    shown: list[tuple[str, float]] = []
    for bound, count in zip((*map(str, bounds), "+Inf"), buckets, strict=True):
        total += count
        shown.append((bound, total))
    return shown


class AdminServer(web.Server):
    """Holds a few connections, each for a short time: it runs in the parent, which needs its files for its children."""

    def __init__(self, answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> None:
        super().__init__(answer)
        self._timer: asyncio.TimerHandle | None = None
        settings = ConnectionSettings(max=CONNECTIONS_MAX)
        # As many files as that takes: what the parent may have is not for this port to use up.
        files = FILES_KEPT + FILES_PER_CALL * CONNECTIONS_MAX
        self.clients: Final = ClientConnections(settings, Uploads(settings), files=files, write_stall_s=STALL_S)

    def __call__(self) -> web.RequestHandler:
        return ClientConnection(self, self.clients, loop=self._loop, access_log=None)

    def watch(self) -> None:
        """Ends connections that are too slow: now and every second, until `stop_watching`."""
        loop = asyncio.get_running_loop()
        try:
            self.clients.look(loop.time())
        finally:
            self._timer = loop.call_later(LOOK_S, self.watch)

    def stop_watching(self) -> None:
        """No more."""
        if self._timer is not None:
            self._timer.cancel()


def handler(board: Board) -> AdminServer:
    """An HTTP server over the board; GET only."""
    registry = CollectorRegistry()
    registry.register(parse_metrics(board))

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.method not in ("GET", "HEAD"):
            return web.Response(status=405, text="GET only\n", headers={"Allow": "GET, HEAD"})
        if request.path == "/metrics":
            encode, content_type = choose_encoder(request.headers.get("Accept", ""))
            return web.Response(body=encode(registry), headers={"Content-Type": content_type})
        if request.path == "/healthz":
            return web.json_response({"status": "ok"})
        if request.path == "/readyz":
            ready, body = board.readiness()
            return web.json_response(body, status=200 if ready else 503)
        return web.Response(status=404, text="here are /metrics, /healthz and /readyz\n")

    return AdminServer(answer)
